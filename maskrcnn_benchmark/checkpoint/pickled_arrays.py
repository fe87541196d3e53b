"""Pickles of numpy arrays, read without trusting them.

A pickle can call any function that it names and set the inner state of any object that it holds. Here the few
names which rebuild numpy arrays stand for objects of this file. They check what they are given, take no other
state, and hand numpy nothing but bytes, a shape and a plain number type.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.utils.errors import CheckpointError
from maskrcnn_benchmark.utils.files import StrPath

_NUMBER = re.compile(r"b1|[iu][1248]|f[248]")
_BYTE_ORDERS = ("<", ">", "=", "|")


class _Name:
    """What a name in the pickle stands for; its state cannot be set from the pickle."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function")


class _NumberType:
    """A numpy number type; the pickle may set the byte order and nothing else."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any) -> None:
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise pickle.UnpicklingError(f"an array is of type {code!r}, which is no number that torch has")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """State as numpy writes it: version, byte order, subtype, names, fields, size, alignment, flags."""
        order, structure, flags = state[1], state[2:5], state[7:8]
        if order not in _BYTE_ORDERS or structure != (None, None, None) or flags not in ((), (0,)):
            raise pickle.UnpicklingError("a number type has an unusual state")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array, empty until the pickle sets its state."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """State as numpy writes it: (version,) shape, type, whether columns come first, data."""
        shape, number, fortran, data = state[-4:]
        self.value = _values(data, number).reshape(shape, order="F" if fortran else "C")


def _values(data: Any, number: Any) -> np.ndarray:
    """Raw bytes (old pickles hold them as latin1 text) as a flat array of values (N,)."""
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(number, _NumberType) or not isinstance(raw, (bytes, bytearray)):
        raise pickle.UnpicklingError("an array is written in an unusual way")
    return np.frombuffer(raw, dtype=number.dtype)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    """How numpy begins an array; only the form that it writes itself."""
    if kind is not _ARRAY_CLASS or shape != (0,):
        raise pickle.UnpicklingError("an array is written in an unusual way")
    return _Array()


def _from_buffer(data: Any, number: Any, shape: Any, order: Any) -> _Array:
    """A whole array, as in pickle protocol 5."""
    array = _Array()
    array.__setstate__((shape, number, order == "F", data))
    return array


def _number_type(code: Any, align: Any = False, copy: Any = True) -> _NumberType:
    """A number type; numpy's further arguments mean nothing for it."""
    return _NumberType(code)


def _scalar(number: Any, data: Any) -> Any:
    """A numpy number outside an array, as a number of Python."""
    return _values(data, number)[0].item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes into old pickle protocols."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes are written in an unusual way")
    return text.encode("latin1")


def _no_bytes(*args: Any) -> bytes:
    """How Python 3 writes empty bytes into old pickle protocols: `bytes()`."""
    if args:
        raise pickle.UnpicklingError("bytes are written in an unusual way")
    return b""


def _not_callable(*_: Any) -> Any:
    raise pickle.UnpicklingError("an array is written in an unusual way")


_ARRAY_CLASS = _Name(_not_callable)  # the class numpy.ndarray can be named, as an argument, but not called
_ADMITTED = {
    ("numpy", "ndarray"): _ARRAY_CLASS,
    ("numpy", "dtype"): _Name(_number_type),
    ("_codecs", "encode"): _Name(_encode),
    ("__builtin__", "bytes"): _Name(_no_bytes),
}
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED[_core + ".multiarray", "_reconstruct"] = _Name(_reconstruct)
    _ADMITTED[_core + ".multiarray", "scalar"] = _Name(_scalar)
    _ADMITTED[_core + ".numeric", "_frombuffer"] = _Name(_from_buffer)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of scalars, text, lists, dicts and numpy arrays, and refuses every other name."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """What stands for `module.name`; anything but parts of arrays is refused."""
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}; only numpy arrays are admitted")
        return _ADMITTED[module, name]


def read_pickled_arrays(path: StrPath) -> dict[str, np.ndarray]:
    """Read the arrays of a pickled dict, or of the dict under its key `blobs`; other entries are left out.

    Returns:
        Arrays by name in native byte order: bool, int8..int64, uint8..uint64 or float16..float64.

    Raises:
        CheckpointError: the file is missing, truncated, no pickle, names anything but numpy arrays, or holds
            no dict with arrays.
    """
    try:
        with open(path, "rb") as file:
            content = _ArrayUnpickler(file).load()
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
    arrays = {str(name): array.value for name, array in entries if isinstance(array, _Array)}
    if not arrays:
        raise CheckpointError(
            f"weight file {path} holds a {type(content).__name__} without named arrays; a .pkl must be a "
            "file of Caffe2 or Detectron"
        )
    return {name: value.astype(value.dtype.newbyteorder("=")) for name, value in arrays.items()}


def read_blobs(path: StrPath) -> dict[str, Tensor]:
    """Blobs of a Caffe2 pickle, tensors of any shape (...,), without those of the optimizer (`_momentum`).

    Raises:
        CheckpointError: as `read_pickled_arrays`.
    """
    arrays = read_pickled_arrays(path)
    return {name: torch.from_numpy(array) for name, array in arrays.items() if "_momentum" not in name}
