"""Weight files of Caffe2 and Detectron (``.pkl``): reading them safely, and their names.

A pickle can call any function that it names. The reader here knows four names, all of them needed to rebuild
numpy arrays, and each stands for a function of this file that checks its arguments.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..utils.errors import CheckpointError
from ..utils.files import StrPath

_NUMBER_KINDS = "biuf"


class _ArrayClass:
    """Stands for the class ``numpy.ndarray`` inside a pickle; it can be named but not called."""


_ARRAY_CLASS = _ArrayClass()


def _reconstruct(kind: Any, shape: tuple[int, ...], code: Any) -> np.ndarray:
    """Empty array that the pickle then fills; only the form that numpy itself writes."""
    if kind is not _ARRAY_CLASS or tuple(shape) != (0,):
        raise pickle.UnpicklingError("an array is written in an unusual way")
    return np.ndarray((0,), dtype=np.int8)


def _dtype(code: Any, align: Any = False, copy: Any = True) -> np.dtype:
    """A private copy of a number type (the pickle sets its byte order); never objects or records."""
    dtype = np.dtype(str(code))
    if dtype.kind not in _NUMBER_KINDS:
        raise pickle.UnpicklingError(f"an array of type {code!r}, which is no number")
    return np.dtype(str(code), align=False, copy=True)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes into old pickle protocols."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


def _scalar(dtype: np.dtype, data: bytes | str) -> Any:
    """A numpy number outside an array."""
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, dtype=dtype, count=1)[0]


def _from_buffer(data: Any, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """An array in pickle protocol 5."""
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


_ADMITTED: dict[tuple[str, str], Callable[..., Any] | _ArrayClass] = {
    ("numpy", "ndarray"): _ARRAY_CLASS,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
}
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED[_core + ".multiarray", "_reconstruct"] = _reconstruct
    _ADMITTED[_core + ".multiarray", "scalar"] = _scalar
    _ADMITTED[_core + ".numeric", "_frombuffer"] = _from_buffer


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of numbers, text, lists, dicts and numpy arrays, and refuses every other name."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """The function that stands for ``module.name``; anything but array parts is refused."""
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}; only numpy arrays are admitted")
        return _ADMITTED[module, name]


def read_caffe2(path: StrPath) -> dict[str, Tensor]:
    """Blobs of a Caffe2 pickle by their Caffe2 names, without those of the optimizer (``_momentum``).

    Raises:
        CheckpointError: the file is missing, truncated, no pickle, or names anything but numpy arrays.
    """
    try:
        with open(path, "rb") as file:
            content = ArrayUnpickler(file).load()
    except FileNotFoundError:
        raise CheckpointError(f"weight file {path} does not exist") from None
    except Exception as error:  # a damaged or hostile pickle may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"weight file {path} cannot be read as a pickle of arrays: {reason}") from None
    if isinstance(content, dict) and isinstance(content.get("blobs"), dict):
        content = content["blobs"]
    if not isinstance(content, dict):
        raise CheckpointError(f"weight file {path} holds a {type(content).__name__} instead of named arrays")
    blobs = {
        str(name): torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
        for name, value in content.items()
        if isinstance(value, np.ndarray) and "_momentum" not in str(name)
    }
    if not blobs:
        raise CheckpointError(f"weight file {path} holds no arrays")
    return blobs


# Index of the last block of res2..res5, which Detectron puts into the names of FPN blobs.
LAST_BLOCKS = {"R-50": (2, 3, 5, 2), "R-101": (2, 3, 22, 2), "R-152": (2, 7, 35, 2)}
_PARTS = {"w": "weight", "b": "bias", "s": "weight"}
_BRANCHES = {"2a": "1", "2b": "2", "2c": "3"}


def depth_of(conv_body: str) -> str:
    """Depth in the table of LAST_BLOCKS of a backbone name: "R-50-FPN" gives "R-50"."""
    return re.sub(r"-(C4|C5|FPN)(-RETINANET)?$", "", conv_body)


def rename_blobs(names: list[str], conv_body: str) -> dict[str, str]:
    """Map Caffe2 blob names to parameter names (specification "core", section 3.1).

    The results are the tails of the model's names ("layer1.0.conv1.weight"), to be found by the suffix match.

    Args:
        names: blob names without ``_momentum`` ones.
        conv_body: MODEL.BACKBONE.CONV_BODY, or a depth such as "R-50".

    Raises:
        CheckpointError: the file has FPN blobs and the backbone is none that Detectron published.
    """
    depth = depth_of(conv_body)
    result = {}
    for name in names:
        if name.startswith("fpn_") and depth not in LAST_BLOCKS:
            raise CheckpointError(
                f"blob {name}: FPN blobs are known for {', '.join(LAST_BLOCKS)}, not for {conv_body}"
            )
        result[name] = _rename(name, LAST_BLOCKS.get(depth, ()))
    return result


def _rename(name: str, last_blocks: tuple[int, ...]) -> str:
    stem, _, part = name.rpartition("_")
    if part not in _PARTS:
        return name
    tail = _PARTS[part]
    if norm := re.fullmatch(r"(?:res_)?conv1(_bn|_gn)?", stem):
        return f"bn1.{tail}" if norm[1] else f"conv1.{tail}"
    if block := re.fullmatch(r"res([2-5])_(\d+)_branch(1|2[abc])(_bn|_gn)?", stem):
        layer = f"layer{int(block[1]) - 1}.{block[2]}"
        if block[3] == "1":
            return f"{layer}.downsample.{1 if block[4] else 0}.{tail}"
        return f"{layer}.{'bn' if block[4] else 'conv'}{_BRANCHES[block[3]]}.{tail}"
    if fpn := re.fullmatch(r"fpn_(inner_)?res([2-5])_(\d+)_sum(_lateral)?(_gn)?", stem):
        level = int(fpn[2]) - 2
        if int(fpn[3]) == last_blocks[level]:
            kind = "inner" if fpn[1] else "layer"
            inner = ".1" if fpn[5] else ""
            return f"fpn_{kind}{level + 1}{inner}.{tail}"
    if rpn := re.fullmatch(r"(conv_rpn|rpn_cls_logits|rpn_bbox_pred)(_fpn2)?", stem):
        return f"rpn.head.{'conv' if rpn[1] == 'conv_rpn' else rpn[1][4:]}.{tail}"
    if mask := re.fullmatch(r"_?(?:\[mask\]_)?(mask_)?fcn(\d+)", stem):
        return f"mask_fcn{mask[2]}.{tail}"
    return f"{'fc1000' if stem == 'pred' else stem}.{tail}"
