"""What the names in a torch file stand for: tensors on checked storages, and little else.

The names are those of torch's own reader for weights (torch/_weights_only_unpickler.py). A tensor is made
only when it lies within its storage, and a storage only when the file has room for it.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.checkpoint.content import Unsupported
from maskrcnn_benchmark.checkpoint.pickle_machine import (
    Budget,
    ForeignNameError,
    Name,
    PickleError,
    check_key,
    short,
)

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "CharStorage": torch.int8,
    "ShortStorage": torch.int16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
    "QUInt4x2Storage": torch.uint8,
    "QUInt2x4Storage": torch.uint8,
}
_UNSUPPORTED = {
    "_rebuild_qtensor": "a quantized tensor",
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor without values (of the device meta)",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_wrapper_subclass": "a tensor of a special class",
    "_rebuild_device_tensor_from_numpy": "a tensor of a special device",
    "_rebuild_device_tensor_from_cpu_tensor": "a tensor of a special device",
    "_rebuild_xla_tensor": "a tensor of a special device",
}
_MAX_DIMENSIONS = 64
_MAX_EXTENT = 1 << 48
_MAX_EXPANDED = 1 << 24  # values of a tensor that has more of them than its storage
_MAX_COUNT = 1 << 20


@dataclass(frozen=True)
class _Kind:
    """Class of a storage."""

    dtype: torch.dtype
    quantized: bool


@dataclass(frozen=True)
class Storage:
    """A part of a file that tensors lie on.

    Attributes:
        key: name in the file. dtype, numel: type and number of its values.
        data: (numel * itemsize,) uint8, to be filled by the reader of the file; None without values.
        start: first value that tensors may use. length: number of values that they may use.
    """

    key: str
    dtype: torch.dtype
    numel: int
    data: Tensor | None
    start: int
    length: int
    quantized: bool = False

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return self.numel * self.dtype.itemsize


class TorchObjects:
    """Finds what names and persistent ids of one file stand for.

    Args:
        meta: make tensors without values.
        limit: bytes that all storages may have together.
        copied: bytes that texts and byte strings may be copied to.
        size_of: key -> bytes that the file has for it, None when it has no such storage. Without it every
            size is admitted, up to `limit`.

    Attributes:
        storages: by key, in the order of their first use.
    """

    def __init__(
        self, *, meta: bool, limit: int, copied: int, size_of: Callable[[str], int | None] | None = None
    ) -> None:
        self.storages: dict[str, Storage] = {}
        self._views: dict[str, Storage] = {}
        self._meta = meta
        self._bytes = Budget(limit)
        self._copied = Budget(copied)
        self._size_of = size_of
        self._key_of: dict[int, tuple[Tensor, str]] = {}  # with the tensor, which keeps its id
        self._names = self._table()

    def key_of(self, tensor: Tensor) -> str | None:
        """Key of the storage of a tensor (...,) that was made here."""
        return self._key_of.get(id(tensor), (None, None))[1]

    def find(self, module: str, name: str) -> Any:
        """What stands for `module.name`; ForeignNameError where nothing does."""
        module = {"__builtin__": "builtins"}.get(module, module)
        if module in ("torch", "torch.cuda", "torch.storage"):
            if name in _STORAGES:
                return _Kind(_STORAGES[name], name.startswith("Q"))
            known = vars(torch).get(name)  # not `getattr`, which may import modules
            if isinstance(known, torch.dtype) and module == "torch":
                return known
            if name.endswith("Tensor") or isinstance(known, torch.qscheme):
                return Name(name)  # classes of tensors and kinds of quantization are named, never called
        if module == "torch._utils" and name in _UNSUPPORTED:
            return Name(name, lambda *_: Unsupported(_UNSUPPORTED[name]))
        try:
            return self._names[module, name]
        except KeyError:
            raise ForeignNameError(f"{module}.{name}") from None

    def _table(self) -> dict[tuple[str, str], Name]:
        table: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): _ordered,
            ("collections", "Counter"): _counter,
            ("builtins", "set"): lambda items=(): set(map(check_key, _items(items))),
            ("builtins", "complex"): lambda *parts: complex(*map(_real, parts)),
            ("builtins", "bytearray"): self._bytearray,
            ("builtins", "bytes"): self._bytes_of,
            ("_codecs", "encode"): self._encode,
            ("torch", "Size"): lambda sizes: torch.Size(_extents(sizes)),
            ("torch", "device"): lambda *parts: torch.device(*map(_device_part, parts)),
            ("torch.nn.parameter", "Parameter"): self._parameter,
            ("torch.serialization", "_get_layout"): lambda *_: Unsupported("a memory layout"),
            ("torch._utils", "_rebuild_tensor"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor_v2,
            ("torch._utils", "_rebuild_tensor_v3"): self._tensor_v3,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            ("torch._utils", "_rebuild_parameter_with_state"): self._parameter,
            ("torch._tensor", "_rebuild_from_type_v2"): self._subclass,
        }
        return {key: Name(f"{key[0]}.{key[1]}", function) for key, function in table.items()}

    def persistent(self, reference: Any) -> Storage:
        """The storage of an id: ("storage", class, key, location, number of values, view or None)."""
        if type(reference) is not tuple or len(reference) not in (5, 6) or reference[0] != "storage":
            raise PickleError("it refers to something that is no storage")
        kind, key, numel = reference[1], reference[2], reference[4]
        if type(kind) is not _Kind or type(key) is not str or len(key) > 100 or not _is_extent(numel):
            raise PickleError("it describes a storage in an unusual way")
        storage = self.storages.get(key)
        if storage is None:
            storage = self.storages[key] = self._new(kind, key, numel)
        elif (storage.dtype, storage.numel) != (kind.dtype, numel):
            raise PickleError(f"storage {short(key)} has two types or two sizes")
        return storage if len(reference) == 5 or reference[5] is None else self._view(storage, reference[5])

    def _new(self, kind: _Kind, key: str, numel: int) -> Storage:
        nbytes = numel * kind.dtype.itemsize
        if self._size_of is not None and self._size_of(key) != nbytes:
            present = self._size_of(key)
            has = "is missing" if present is None else f"has {present} bytes"
            raise PickleError(f"storage {short(key)} {has}, its tensors need {nbytes}")
        try:
            self._bytes.spend(nbytes)
        except PickleError:
            raise PickleError(
                f"storage {short(key)} needs {nbytes} bytes, which the file does not have"
            ) from None
        data = None if self._meta else torch.empty(nbytes, dtype=torch.uint8)
        return Storage(key, kind.dtype, numel, data, 0, numel, kind.quantized)

    def _view(self, storage: Storage, view: Any) -> Storage:
        """Part of a storage, as torch 0.3 and before wrote it: key, first value, number of values."""
        if type(view) is not tuple or len(view) != 3 or not all(map(_is_extent, view[1:])):
            raise PickleError("it describes a part of a storage in an unusual way")
        _, start, length = view
        if start + length > storage.numel:
            raise PickleError(f"a part of storage {short(storage.key)} lies beyond its end")
        return replace(storage, start=start, length=length)

    def _tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None
    ) -> Tensor | Unsupported:
        """A tensor with the given size and strides, which must lie within its storage."""
        if type(storage) is not Storage or not _is_extent(offset):
            raise PickleError("a tensor is written in an unusual way")
        size, stride = _extents(size), _extents(stride)
        dtype = dtype or storage.dtype
        if storage.quantized:
            return Unsupported("a quantized tensor")
        if len(size) != len(stride):
            raise PickleError("a tensor has other numbers of sizes and strides")
        numel = 1
        for extent in size:
            numel *= extent
        last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
        if numel and (last + 1) * dtype.itemsize > storage.length * storage.dtype.itemsize:
            raise PickleError(
                f"a tensor of size {tuple(size)} reaches beyond its storage {short(storage.key)}"
            )
        if numel > max(storage.numel, _MAX_EXPANDED):
            raise PickleError(f"a tensor of size {tuple(size)} repeats the values of its storage")
        if storage.data is None:
            tensor = torch.empty_strided(size, stride, dtype=dtype, device="meta")
        else:
            tensor = torch.empty(0, dtype=dtype).set_(
                storage.data.untyped_storage(), storage.start + offset if numel else 0, size, stride
            )
        return self._known(tensor, storage.key)

    def _known(self, tensor: Tensor, key: str) -> Tensor:
        self._key_of[id(tensor)] = tensor, key
        return tensor

    def _tensor_v2(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any,
        hooks: Any,
        metadata: Any = None,
    ) -> Tensor | Unsupported:
        return _finish(self._tensor(storage, offset, size, stride), requires_grad, metadata)

    def _tensor_v3(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any,
        hooks: Any,
        dtype: Any,
        metadata: Any = None,
    ) -> Tensor | Unsupported:
        if not isinstance(dtype, torch.dtype):
            raise PickleError("a tensor has an unusual type")
        return _finish(self._tensor(storage, offset, size, stride, dtype), requires_grad, metadata)

    def _parameter(self, data: Any = None, requires_grad: Any = True, *_: Any) -> nn.Parameter | Unsupported:
        if isinstance(data, Unsupported):
            return data
        if not isinstance(data, Tensor) or type(requires_grad) is not bool:
            raise PickleError("a parameter is written in an unusual way")
        parameter = nn.Parameter(data, requires_grad)
        self._known(parameter, self.key_of(data) or "")
        return parameter

    def _subclass(self, function: Any, kind: Any, arguments: Any, state: Any) -> Any:
        """A tensor with attributes, which are left out."""
        if type(function) is not Name or function.function is None or type(kind) is not Name:
            raise PickleError("a tensor is written in an unusual way")
        if function.label not in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"):
            return Unsupported("a tensor of a special class")
        value = function.function(*arguments)
        return self._parameter(value) if kind.label.endswith("Parameter") else value

    def _encode(self, text: Any, encoding: Any = "latin1") -> bytes:
        """How Python 3 writes bytes into old pickle protocols."""
        if type(text) is not str or encoding != "latin1":
            raise PickleError("bytes are written in an unusual way")
        self._copied.spend(len(text))
        return text.encode("latin1")

    def _bytearray(self, content: Any = b"", encoding: Any = "latin1") -> bytearray:
        return bytearray(self._bytes_of(content, encoding))

    def _bytes_of(self, content: Any = b"", encoding: Any = "latin1") -> bytes:
        if type(content) is str:
            return self._encode(content, encoding)
        if type(content) not in (bytes, bytearray):
            raise PickleError("bytes are written in an unusual way")
        self._copied.spend(len(content))
        return bytes(content)


def _finish(value: Tensor | Unsupported, requires_grad: Any, metadata: Any) -> Tensor | Unsupported:
    """Set what a tensor carries beside its values."""
    if metadata:
        return Unsupported("a view whose values are negated or conjugated when they are read")
    if isinstance(value, Tensor) and requires_grad is True:
        value.requires_grad_()
    return value


def _is_extent(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_EXTENT


def _extents(values: Any) -> tuple[int, ...]:
    """Sizes or strides: a tuple of numbers from 0."""
    good = (
        isinstance(values, tuple | list) and len(values) <= _MAX_DIMENSIONS and all(map(_is_extent, values))
    )
    if not good:
        raise PickleError("a tensor has an unusual size or stride")
    return tuple(values)


def _items(values: Any) -> Any:
    if not isinstance(values, tuple | list | set | frozenset):
        raise PickleError("a container is written in an unusual way")
    return values


def _ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    """An OrderedDict; Python 2 gives its items at once."""
    items = [_items(pair) for pair in _items(pairs)]
    return OrderedDict((check_key(key), value) for key, value in items)


def _counter(counts: Any = None) -> Counter[Any]:
    if type(counts) not in (dict, type(None)):
        raise PickleError("a Counter is written in an unusual way")
    good = all(type(n) is int and 0 <= n < _MAX_COUNT for n in (counts or {}).values())
    if not good:
        raise PickleError("a Counter has unusual counts")
    return Counter(counts)


def _real(value: Any) -> float:
    if type(value) not in (int, float):
        raise PickleError("a complex number is written in an unusual way")
    return float(value)


def _device_part(value: Any) -> Any:
    if type(value) not in (str, int) or len(str(value)) > 20:
        raise PickleError("a device is written in an unusual way")
    return value
