"""A pickle machine for untrusted files: nothing is executed, and time and memory are bounded.

It reads the protocols 0 to 5 of Python's `pickle`. What a pickle names is looked up in a table of the caller,
keys are text or numbers, and depth and size of the result are checked before anything walks through it: a
pickle of one megabyte can nest a million tuples, one of 128 bytes can share a list 2^40 times.
"""

from __future__ import annotations

import codecs
import pickle
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, cast

MAX_OPERATIONS = 1 << 21
MAX_CALLS = 1 << 18
_MAX_DIGITS = 80  # digits of a number in text form
_MAX_INTEGER = 64  # bytes of an integer
_MAX_NAME = 256  # bytes of a module or class name
_LONG = 4096  # longer bytes may stay where they are in the file
_KEYS = (str, int, bool, float, type(None), bytes)
_DICTS = (dict, OrderedDict, Counter)


class PickleError(ValueError):
    """A pickle that is damaged, hostile or of another program; the text says what is wrong with it."""


class ForeignNameError(PickleError):
    """A pickle that names something which the caller does not admit; the text is that name."""


class ShortError(PickleError):
    """A pickle that ends before its last operation."""


class Name:
    """What a name in a pickle stands for: an object to pass on, and to call when `function` is given."""

    __slots__ = ("function", "label")

    def __init__(self, label: str, function: Callable[..., Any] | None = None) -> None:
        self.label = label
        self.function = function


class Buildable:
    """An object whose state a pickle may set, through `build` alone."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        """Take the state; raises PickleError when it is unusual."""
        raise PickleError("it sets the state of an object that has none")


class Budget:
    """Bytes that the functions of a table may allocate, so that few operations cannot copy much."""

    def __init__(self, limit: int) -> None:
        self._remaining = limit

    def spend(self, count: int) -> None:
        """Count `count` bytes; PickleError when they are too many."""
        self._remaining -= count
        if self._remaining < 0:
            raise PickleError("it copies its content many times over")


def short(value: Any) -> str:
    """Describe a value of a file in a few words, whatever it is: `repr` of foreign values may never end."""
    if isinstance(value, str):
        return repr(str(value[:60])) + ("..." if len(value) > 60 else "")
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 64):
        return repr(value)
    return f"a value of type {type(value).__name__[:60]}"


def check_key(key: Any) -> Any:
    """Return `key`; PickleError unless it is a scalar or text, which cannot be deep."""
    if type(key) not in _KEYS:
        raise PickleError(f"a key is {short(key)} where only text and numbers are admitted")
    return key


class Machine:
    """Reads the pickles in `data` one after another.

    Args:
        data: the content of a file.
        find: (module, name) -> what stands for it; raises ForeignNameError.
        persistent: persistent id -> what stands for it; None refuses them.
        encoding: of the text that Python 2 wrote. Where it does not fit, the bytes stay.
        views: bytes of 4 kB and more, also of Python 2, become views of `data`.
    """

    def __init__(
        self,
        data: bytes,
        find: Callable[[str, str], Any],
        *,
        persistent: Callable[[Any], Any] | None = None,
        encoding: str = "utf-8",
        views: bool = False,
    ) -> None:
        self._data = data
        self._view = memoryview(data)
        self._find = find
        self._persistent = persistent
        self._encoding = encoding
        self._views = views
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._calls = 0
        self.position = 0

    def load(self) -> Any:
        """Read the next pickle; `position` is then behind it.

        Its depth and shared parts are not bounded: see `checked_content`.

        Raises:
            ForeignNameError: it names something that is not admitted.
            ShortError: `data` ends before it does.
            PickleError: it is no pickle, or an unusual one.
        """
        self._stack, self._marks, self._memo = [], [], {}
        try:
            return self._run()
        except PickleError:
            raise
        except (
            IndexError,
            KeyError,
            TypeError,
            ValueError,
            OverflowError,
            struct.error,
            RuntimeError,
        ) as error:
            text = " ".join(str(error).split())[:100]
            raise PickleError(f"its operations make no sense: {type(error).__name__} {text}") from None

    def _run(self) -> Any:
        data, operations = self._data, _OPERATIONS
        for _ in range(MAX_OPERATIONS):
            position = self.position
            if position >= len(data):
                raise ShortError("it ends too early")
            code = data[position]
            self.position = position + 1
            if code == _STOP:
                return self._stack.pop()
            operation = operations.get(code)
            if operation is None:
                raise PickleError(f"byte {position} is no operation of a weight file")
            operation(self)
        raise PickleError(f"it has more than {MAX_OPERATIONS} operations")

    def _take(self, count: int) -> memoryview:
        """The next `count` bytes, not copied."""
        end = self.position + count
        if end > len(self._data):
            raise ShortError("it ends in the middle of a value")
        piece = self._view[self.position : end]
        self.position = end
        return piece

    def _line(self, limit: int) -> bytes:
        """The bytes up to the next line break, which is passed."""
        end = self._data.find(b"\n", self.position, self.position + limit + 1)
        if end < 0 and self.position + limit < len(self._data):
            raise PickleError(f"a line of it has more than {limit} characters")
        if end < 0:
            raise ShortError("it ends in the middle of a line")
        line = self._data[self.position : end]
        self.position = end + 1
        return line

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def unsigned(self, size: int) -> int:
        """The next `size` bytes as a number."""
        return int.from_bytes(self._take(size), "little")

    def real(self) -> float:
        """The next 8 bytes as a number."""
        return float(struct.unpack(">d", self._take(8))[0])

    def integer(self, size: int) -> int:
        """The next `size` bytes as a number with a sign."""
        if size > _MAX_INTEGER:
            raise PickleError(f"an integer has {size} bytes")
        return int.from_bytes(self._take(size), "little", signed=True)

    def raw(self, size: int) -> bytes | memoryview:
        """The next `size` bytes."""
        piece = self._take(size)
        return piece if self._views and size >= _LONG else bytes(piece)

    def changeable(self, size: int) -> bytearray | memoryview:
        """The next `size` bytes, as a bytearray."""
        piece = self.raw(size)
        return bytearray(piece) if isinstance(piece, bytes) else piece

    def text(self, size: int) -> str:
        """The next `size` bytes as UTF-8."""
        return str(self._take(size), "utf-8", "surrogatepass")

    def native(self, raw: bytes | memoryview) -> Any:
        """Text of Python 2."""
        if self._views and len(raw) >= _LONG:
            return raw
        try:
            return str(raw, self._encoding)
        except UnicodeDecodeError:
            return bytes(raw)

    def quoted(self) -> Any:
        """Text of Python 2 in quotes, up to the line break."""
        line = self._line(len(self._data)).strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise PickleError("a text has no quotes")
        return self.native(codecs.escape_decode(line[1:-1])[0])

    def number(self) -> int | bool:
        """An integer in text form, up to the line break; 00 and 01 are False and True."""
        line = self._line(_MAX_DIGITS)
        return {b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line.rstrip(b"L"))

    def unescaped(self) -> str:
        """Text with escapes, up to the line break."""
        return str(self._line(len(self._data)), "raw-unicode-escape")

    def float_line(self) -> float:
        """A real number in text form, up to the line break."""
        return float(self._line(_MAX_DIGITS))

    def put(self, index: int) -> None:
        """Remember the top of the stack."""
        self._memo[index] = self._stack[-1]

    def memoize(self) -> None:
        """Remember the top of the stack under the next number."""
        self.put(len(self._memo))

    def get(self, index: int) -> None:
        """Push what is remembered."""
        self._stack.append(self._memo[index])

    def mark(self) -> None:
        """Begin the items of a container."""
        self._marks.append(self._stack)
        self._stack = []

    def items(self) -> list[Any]:
        """End the items of a container."""
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def pop(self) -> None:
        """Drop the top of the stack, or the mark where nothing is above it."""
        if self._stack:
            self._stack.pop()
        else:
            self.items()

    def last(self, count: int) -> None:
        """Make the last `count` values a tuple."""
        if len(self._stack) < count:
            raise PickleError("a tuple has too few values")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def extend(self, items: list[Any]) -> None:
        """Append to the list on top of the stack."""
        if type(self._stack[-1]) is not list:
            raise PickleError("it appends to something that is no list")
        self._stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        """Set items of the dict on top of the stack: key, value, key, value ..."""
        target = self._stack[-1]
        if type(target) not in _DICTS:
            raise PickleError("it sets an item of something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[check_key(key)] = value

    def add(self, items: list[Any]) -> None:
        """Add to the set on top of the stack."""
        if type(self._stack[-1]) is not set:
            raise PickleError("it adds to something that is no set")
        self._stack[-1].update(map(check_key, items))

    def name(self, module: Any, name: Any) -> None:
        """Push what stands for a name."""
        if type(module) is not str or type(name) is not str or len(module) + len(name) > 2 * _MAX_NAME:
            raise PickleError("it names something in an unusual way")
        self._stack.append(self._find(module, name))

    def global_lines(self) -> None:
        """Push what stands for the name on the next two lines."""
        self.name(self._line(_MAX_NAME).decode(), self._line(_MAX_NAME).decode())

    def call(self) -> None:
        """Call what the last but one value stands for with the last one."""
        arguments, name = self._stack.pop(), self._stack.pop()
        self._calls += 1
        if self._calls > MAX_CALLS:
            raise PickleError(f"it has more than {MAX_CALLS} objects")
        if type(name) is not Name or name.function is None or type(arguments) is not tuple:
            raise PickleError("it calls something that is no function")
        try:
            self._stack.append(name.function(*arguments))
        except TypeError:
            raise PickleError(f"it calls {name.label} with unusual arguments") from None

    def call_with_options(self) -> None:
        """`call` with named arguments, of which there must be none."""
        if self._stack.pop() != {}:
            raise PickleError("it calls a function with named arguments")
        self.call()

    def build(self) -> None:
        """Set the state of an object; attributes of an OrderedDict (`_metadata`) are left out."""
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Buildable):
            target.build(state)
        elif type(target) is not OrderedDict:
            raise PickleError("it sets the inner state of an object")

    def refer(self) -> None:
        """Push what stands for a persistent id."""
        if self._persistent is None:
            raise PickleError("it refers to something outside of it")
        self._stack.append(self._persistent(self._stack.pop()))

    def one(self) -> list[Any]:
        """Take the last value off the stack, as a list."""
        return [self._stack.pop()]

    def two(self) -> list[Any]:
        """Take the last two values off the stack."""
        last = self._stack.pop()
        return [self._stack.pop(), last]


_STOP = pickle.STOP[0]


def _push(value: Callable[[Machine], Any]) -> Callable[[Machine], None]:
    """An operation that pushes a value."""

    def operation(machine: Machine) -> None:
        machine.push(value(machine))

    return operation


def _dict_of(items: list[Any]) -> dict[Any, Any]:
    return {check_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


_P: Any = pickle  # the codes, of which the stubs list some only
_OPERATIONS: dict[int, Callable[[Machine], Any]] = {
    cast(bytes, code)[0]: operation
    for code, operation in (
        (_P.PROTO, lambda m: m.unsigned(1)),
        (_P.FRAME, lambda m: m.unsigned(8)),
        (_P.NONE, lambda m: m.push(None)),
        (_P.NEWTRUE, lambda m: m.push(True)),
        (_P.NEWFALSE, lambda m: m.push(False)),
        (_P.INT, _push(Machine.number)),
        (_P.LONG, _push(Machine.number)),
        (_P.FLOAT, _push(Machine.float_line)),
        (_P.BININT, _push(lambda m: m.integer(4))),
        (_P.BININT1, _push(lambda m: m.unsigned(1))),
        (_P.BININT2, _push(lambda m: m.unsigned(2))),
        (_P.LONG1, _push(lambda m: m.integer(m.unsigned(1)))),
        (_P.LONG4, _push(lambda m: m.integer(m.unsigned(4)))),
        (_P.BINFLOAT, _push(Machine.real)),
        (_P.STRING, _push(Machine.quoted)),
        (_P.BINSTRING, _push(lambda m: m.native(m.raw(m.unsigned(4))))),
        (_P.SHORT_BINSTRING, _push(lambda m: m.native(m.raw(m.unsigned(1))))),
        (_P.UNICODE, _push(Machine.unescaped)),
        (_P.BINUNICODE, _push(lambda m: m.text(m.unsigned(4)))),
        (_P.SHORT_BINUNICODE, _push(lambda m: m.text(m.unsigned(1)))),
        (_P.BINUNICODE8, _push(lambda m: m.text(m.unsigned(8)))),
        (_P.BINBYTES, _push(lambda m: m.raw(m.unsigned(4)))),
        (_P.SHORT_BINBYTES, _push(lambda m: m.raw(m.unsigned(1)))),
        (_P.BINBYTES8, _push(lambda m: m.raw(m.unsigned(8)))),
        (_P.BYTEARRAY8, _push(lambda m: m.changeable(m.unsigned(8)))),
        (_P.MARK, Machine.mark),
        (_P.POP, Machine.pop),
        (_P.POP_MARK, Machine.items),
        (_P.DUP, lambda m: m.push(m._stack[-1])),
        (_P.EMPTY_TUPLE, _push(lambda m: ())),
        (_P.TUPLE, _push(lambda m: tuple(m.items()))),
        (_P.TUPLE1, lambda m: m.last(1)),
        (_P.TUPLE2, lambda m: m.last(2)),
        (_P.TUPLE3, lambda m: m.last(3)),
        (_P.EMPTY_LIST, _push(lambda m: [])),
        (_P.LIST, _push(Machine.items)),
        (_P.APPEND, lambda m: m.extend(m.one())),
        (_P.APPENDS, lambda m: m.extend(m.items())),
        (_P.EMPTY_DICT, _push(lambda m: {})),
        (_P.DICT, _push(lambda m: _dict_of(m.items()))),
        (_P.SETITEM, lambda m: m.update(m.two())),
        (_P.SETITEMS, lambda m: m.update(m.items())),
        (_P.EMPTY_SET, _push(lambda m: set())),
        (_P.FROZENSET, _push(lambda m: frozenset(map(check_key, m.items())))),
        (_P.ADDITEMS, lambda m: m.add(m.items())),
        (_P.PUT, lambda m: m.put(m.number())),
        (_P.BINPUT, lambda m: m.put(m.unsigned(1))),
        (_P.LONG_BINPUT, lambda m: m.put(m.unsigned(4))),
        (_P.MEMOIZE, Machine.memoize),
        (_P.GET, lambda m: m.get(m.number())),
        (_P.BINGET, lambda m: m.get(m.unsigned(1))),
        (_P.LONG_BINGET, lambda m: m.get(m.unsigned(4))),
        (_P.GLOBAL, Machine.global_lines),
        (_P.STACK_GLOBAL, lambda m: m.name(*m.two())),
        (_P.REDUCE, Machine.call),
        (_P.NEWOBJ, Machine.call),
        (_P.NEWOBJ_EX, Machine.call_with_options),
        (_P.BUILD, Machine.build),
        (_P.BINPERSID, Machine.refer),
    )
}
