"""Pickles of numpy arrays, read without trusting them.

A pickle can call any function that it names and set the inner state of any object that it holds. Here the few
names which rebuild numpy arrays stand for objects of this file. They check what they are given, take no other
state, and hand numpy nothing but bytes, a shape and a plain number type.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.checkpoint.content import checked_content
from maskrcnn_benchmark.checkpoint.pickle_machine import (
    Budget,
    Buildable,
    ForeignNameError,
    Machine,
    Name,
    PickleError,
    short,
)
from maskrcnn_benchmark.utils.errors import CheckpointError
from maskrcnn_benchmark.utils.files import StrPath

_NUMBER = re.compile(r"b1|[iu][1248]|f[248]")
_BYTE_ORDERS = ("<", ">", "=", "|")
_MAX_DIMENSIONS = 32
_COPIES = 4  # times the size of its file that arrays may take


class _NumberType(Buildable):
    """A numpy number type; the pickle may set the byte order and nothing else."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any) -> None:
        if type(code) is not str or not _NUMBER.fullmatch(code):
            raise PickleError(f"an array is of type {short(code)}, which is no number that torch has")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        """State as numpy writes it: version, byte order, subtype, names, fields, size, alignment, flags."""
        usual = type(state) is tuple and len(state) in (7, 8, 9) and type(state[1]) is str
        flags = state[7] if usual and len(state) > 7 else 0
        if not usual or state[1] not in _BYTE_ORDERS or any(part is not None for part in state[2:5]):
            raise PickleError("a number type has an unusual state")
        if type(flags) is not int or flags != 0:
            raise PickleError("a number type has an unusual state")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(Buildable):
    """An array, empty until the pickle sets its state."""

    __slots__ = ("_budget", "value")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.value: np.ndarray = np.empty(0, np.uint8)

    def build(self, state: Any) -> None:
        """State as numpy writes it: (version,) shape, type, whether columns come first, data."""
        if type(state) is not tuple or len(state) not in (4, 5):
            raise PickleError("an array has an unusual state")
        shape, number, fortran, data = state[-4:]
        if type(shape) is not tuple or len(shape) > _MAX_DIMENSIONS or type(fortran) not in (bool, int):
            raise PickleError("an array has an unusual shape")
        if not all(type(extent) is int and extent >= 0 for extent in shape):
            raise PickleError("an array has an unusual shape")
        values = _values(data, number, self._budget)
        self.value = values.reshape(shape, order="F" if fortran else "C")


def _values(data: Any, number: Any, budget: Budget) -> np.ndarray:
    """Raw bytes (old pickles hold them as latin1 text) as a flat array of values (N,)."""
    if type(number) is not _NumberType or type(data) not in (str, bytes, bytearray, memoryview):
        raise PickleError("an array is written in an unusual way")
    budget.spend(len(data))
    return np.frombuffer(data.encode("latin1") if type(data) is str else data, dtype=number.dtype)


def _number_type(code: Any, align: Any = False, copy: Any = True) -> _NumberType:
    """A number type; numpy's further arguments mean nothing for it."""
    return _NumberType(code)


def _not_callable(*_: Any) -> Any:
    raise PickleError("an array is written in an unusual way")


_ARRAY_CLASS = Name("numpy.ndarray", _not_callable)  # can be named, as an argument, but not called


class _ArrayNames:
    """Finds what names of parts of arrays stand for, and refuses every other name."""

    def __init__(self, size: int) -> None:
        """`size`: bytes of the file."""
        self._budget = Budget(_COPIES * size)
        functions: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "dtype"): _number_type,
            ("_codecs", "encode"): self._encode,
            ("__builtin__", "bytes"): self._no_bytes,
        }
        for core in ("numpy.core", "numpy._core"):
            functions[f"{core}.multiarray", "_reconstruct"] = self._reconstruct
            functions[f"{core}.multiarray", "scalar"] = self._scalar
            functions[f"{core}.numeric", "_frombuffer"] = self._from_buffer
        self._names = {key: Name(f"{key[0]}.{key[1]}", function) for key, function in functions.items()}
        self._names["numpy", "ndarray"] = _ARRAY_CLASS

    def find(self, module: str, name: str) -> Name:
        """What stands for `module.name`; anything but parts of arrays is refused."""
        if (module, name) not in self._names:
            raise ForeignNameError(f"it names {short(f'{module}.{name}')}; only numpy arrays are admitted")
        return self._names[module, name]

    def _reconstruct(self, kind: Any, shape: Any, code: Any) -> _Array:
        """How numpy begins an array; only the form that it writes itself."""
        usual = type(shape) is tuple and len(shape) == 1 and type(shape[0]) is int and shape[0] == 0
        if kind is not _ARRAY_CLASS or not usual:
            raise PickleError("an array is written in an unusual way")
        return _Array(self._budget)

    def _from_buffer(self, data: Any, number: Any, shape: Any, order: Any) -> _Array:
        """A whole array, as in pickle protocol 5."""
        array = _Array(self._budget)
        array.build((shape, number, type(order) is str and order == "F", data))
        return array

    def _scalar(self, number: Any, data: Any) -> Any:
        """A numpy number outside an array, as a number of Python."""
        return _values(data, number, self._budget)[0].item()

    def _encode(self, text: Any, encoding: Any = "latin1") -> bytes:
        """How Python 3 writes bytes into old pickle protocols."""
        if type(text) is not str or encoding != "latin1":
            raise PickleError("bytes are written in an unusual way")
        self._budget.spend(len(text))
        return text.encode("latin1")

    def _no_bytes(self, *args: Any) -> bytes:
        """How Python 3 writes empty bytes into old pickle protocols: `bytes()`."""
        if args:
            raise PickleError("bytes are written in an unusual way")
        return b""


def read_pickled_arrays(path: StrPath, data: bytes | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of a pickled dict, or of the dict under its key `blobs`; other entries are left out.

    Args:
        data: content of the file, where it has been read already.

    Returns:
        Arrays by name in native byte order: bool, int8..int64, uint8..uint64 or float16..float64.

    Raises:
        CheckpointError: the file is missing, truncated, no pickle, names anything but numpy arrays, or holds
            no dict with arrays.
    """
    try:
        if data is None:
            data = Path(path).read_bytes()
        machine = Machine(data, _ArrayNames(len(data)).find, encoding="latin1", views=True)
        content = checked_content(machine.load())
    except FileNotFoundError:
        raise CheckpointError(f"weight file {path} does not exist; check MODEL.WEIGHT") from None
    except Exception as error:  # a damaged or hostile pickle may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"weight file {path} cannot be read as a pickle of arrays: {reason}; get the file again"
        ) from None
    if isinstance(content, dict) and isinstance(content.get("blobs"), dict):
        content = content["blobs"]
    entries = content.items() if isinstance(content, dict) else ()
    arrays = {str(name): array for name, array in entries if isinstance(array, _Array)}
    if not arrays:
        raise CheckpointError(
            f"weight file {path} holds a {type(content).__name__} without named arrays; a .pkl must be a "
            "file of Caffe2 or Detectron"
        )
    distinct = {id(array): array for array in arrays.values()}  # several names may share one
    copies = {key: _native(array.value) for key, array in distinct.items()}
    return {name: copies[id(array)] for name, array in arrays.items()}


def _native(value: np.ndarray) -> np.ndarray:
    """A copy (...,) in native byte order."""
    return value.astype(value.dtype.newbyteorder("="))


def read_blobs(path: StrPath, data: bytes | None = None) -> dict[str, Tensor]:
    """Blobs of a Caffe2 pickle, tensors of any shape (...,), without those of the optimizer (`_momentum`).

    Raises:
        CheckpointError: as `read_pickled_arrays`.
    """
    arrays = read_pickled_arrays(path, data)
    return {name: torch.from_numpy(array) for name, array in arrays.items() if "_momentum" not in name}
