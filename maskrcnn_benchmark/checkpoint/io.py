"""Read and write checkpoint files: nothing in a file is executed, and a write is whole or absent."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.checkpoint.content import UnsupportedError
from maskrcnn_benchmark.checkpoint.digests import KnownDigest, hasher
from maskrcnn_benchmark.checkpoint.pickle_machine import ForeignNameError, short
from maskrcnn_benchmark.checkpoint.pickled_arrays import read_blobs
from maskrcnn_benchmark.checkpoint.torch_file import ChecksumError, read_legacy, read_zip
from maskrcnn_benchmark.checkpoint.zip_archive import ZIP_MARK, read_at
from maskrcnn_benchmark.utils.errors import CheckpointError
from maskrcnn_benchmark.utils.files import StrPath, atomic_path

_BLOCK = 1 << 22
_MAX_NAME = 1024
_INTEGERS = (
    torch.bool,
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
)


def read_checkpoint(path: StrPath, device: str = "cpu", *, verify: bool = True) -> dict[str, Any]:
    """Read a weight file onto the CPU, or with `device` "meta" names and shapes without values.

    `.pkl` is Caffe2 (blob names stay as they are; always on the CPU); everything else is a torch file that
    holds a dict with `model` (and perhaps optimizer, iteration, classes ...), a dict with `state_dict`
    and `meta` (mmdetection), or a bare state dict.

    Checksums are compared while the file is read: those in a torch file, or a known SHA-256
    (`checkpoint/digests.py`). For files without either, a log line gives the SHA-256.

    Args:
        verify: compare checksums also of values that are not read ("meta").

    Returns:
        A dict with at least `model`: tensors by name. Prefixes such as `module.` stay. Class names of
        mmdetection's `meta` are put under `classes`, background first.

    Raises:
        CheckpointError: the file is missing, truncated, changed since it was written, foreign, or holds
            objects other than dense real tensors, scalars, text and containers of them.
    """
    _require_file(path)
    try:
        content = _content(path, device == "meta", verify)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged or hostile file may raise anything
        raise CheckpointError(f"weight file {path} {_reason(error)}") from None
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"weight file {path} holds a {type(content).__name__} instead of named tensors; give a state dict"
        )
    if isinstance(content.get("model"), Mapping):
        model = content["model"]
        result = dict(content)
    elif isinstance(content.get("state_dict"), Mapping):
        model = content["state_dict"]
        result = {key: value for key, value in content.items() if key != "state_dict"} | _class_names(content)
    else:
        model = content
        result = {}
    strange = next((what for what in map(_strange, model, model.values()) if what), None)
    if strange is not None or not model:
        keys = ", ".join(map(short, list(content)[:4])) or "nothing"
        raise CheckpointError(
            f"weight file {path} is neither a state dict nor a dict with one under 'model': "
            f"{strange or 'it is empty'}; its keys begin with {keys}"
        )
    _require_class_list(result, path)
    result["model"] = dict(model)
    return result


def _require_class_list(content: Mapping[str, Any], path: StrPath) -> None:
    """CheckpointError where the entries that name classes are no lists of names and ids that go together."""
    names, ids = content.get("classes"), content.get("label_to_category")
    lists = {"classes": (names, str), "label_to_category": (ids, int)}
    for key, (values, kind) in lists.items():
        good = isinstance(values, list | tuple) and all(isinstance(value, kind) for value in values)
        if values is not None and not good:
            what = "class names" if kind is str else "category ids"
            raise CheckpointError(
                f"weight file {path}: its entry {key!r} is no list of {what}; save its state dict alone"
            )
    if names is not None and ids is not None and len(names) != len(ids):
        raise CheckpointError(
            f"weight file {path}: it has {len(names)} class names and {len(ids)} category ids; save its "
            "state dict alone"
        )


def _require_file(path: StrPath) -> None:
    """CheckpointError unless `path` is that of a file."""
    name = os.fspath(path)
    scheme = name.partition("://")[0] if "://" in name else ""
    if scheme in ("http", "https"):
        raise CheckpointError(f"weight file {name} is an address where a file is expected; download it first")
    if scheme.isalnum():
        raise CheckpointError(
            f"weight file {name}: addresses of {scheme}:// are not read; give the path of a file"
        )
    if not Path(name).is_file():
        problem = "is no file" if Path(name).exists() else "does not exist"
        raise CheckpointError(f"weight file {name} {problem}; check MODEL.WEIGHT")


def _content(path: StrPath, meta: bool, verify: bool) -> Any:
    """What is in a file, after a comparison with the checksums that there are."""
    with open(path, "rb", buffering=0) as opened:
        file, size = opened.fileno(), os.fstat(opened.fileno()).st_size
        is_zip = os.pread(file, len(ZIP_MARK), 0) == ZIP_MARK
        known = KnownDigest(path, in_name=not is_zip)
        if str(path).endswith(".pkl"):
            data = opened.readall()
            with hasher() as digest:
                digest.feed(memoryview(data))
                content: Any = {"model": read_blobs(path, data)}
                known.compare(digest.hexdigest())
            return content
        if known.prefix and verify and (is_zip or meta):
            known.compare(_file_digest(file, size))
        if is_zip:
            return read_zip(file, size, meta=meta, verify=verify)
        if meta:
            return read_legacy(file, size, meta=True)
        with hasher() as digest:
            content = read_legacy(file, size, meta=False, feed=digest.feed)
            known.compare(digest.hexdigest())
        return content


def _file_digest(file: int, size: int) -> str:
    """SHA-256 of a whole file."""
    digest, block = hashlib.sha256(), memoryview(bytearray(min(size, _BLOCK)))
    for first in range(0, size, _BLOCK):
        piece = block[: min(_BLOCK, size - first)]
        read_at(file, piece, first)
        digest.update(piece)
    return digest.hexdigest()


def _strange(name: Any, value: Any) -> str:
    """What is wrong with an entry of a state dict; empty for a dense real tensor with a name."""
    if not isinstance(name, str) or not name.isprintable() or len(name) > _MAX_NAME:
        return f"{short(name)} is no name of a tensor"
    if not isinstance(value, Tensor):
        return f"{short(name)} is no tensor"
    real = value.dtype.is_floating_point or value.dtype in _INTEGERS
    return "" if real else f"{short(name)} is no tensor of real numbers ({value.dtype})"


def _class_names(content: Mapping[str, Any]) -> dict[str, Any]:
    """{"classes": names by label, background first} of a file of mmdetection; empty where it names none."""
    meta = content.get("meta")
    names = meta.get("CLASSES") if isinstance(meta, Mapping) else None
    named = isinstance(names, tuple | list) and all(isinstance(name, str) for name in names)
    return {"classes": ["__background__", *names]} if named and names else {}


def save_atomic(obj: Any, path: StrPath) -> None:
    """Write `obj` with torch.save under a temporary name, then rename it.

    If anything fails (a full disk, a signal), a file that was there before stays whole.

    Raises:
        WriteError: the disk is full, fails, or does not allow it.
    """
    with atomic_path(path) as temporary:
        try:
            # a Python file, because that of torch gives no reason when a write fails
            with open(temporary, "wb") as file:
                torch.save(obj, file)
        except RuntimeError as error:
            reason = error.__context__
            raise (reason if isinstance(reason, OSError) else error) from None


def check_sums(path: StrPath) -> None:
    """Compare the content of a weight file with its checksums without keeping it, as `read_checkpoint` does.

    Raises:
        CheckpointError: a checksum is wrong, or the file cannot be read.
    """
    read_checkpoint(path, "meta")


def _reason(error: Exception) -> str:
    """What went wrong, in words and in one line."""
    text = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, ForeignNameError):
        return (
            f"holds objects other than tensors, scalars and text ({short(text)}) and is not read; where you "
            "trust it, save its state dict alone"
        )
    if isinstance(error, UnsupportedError):
        return (
            f"cannot be used: {text}; only dense tensors of real numbers are read: convert it and save again"
        )
    if isinstance(error, ChecksumError):
        return f"is damaged: {text}; get it again"
    if isinstance(error, OSError):
        return f"cannot be read: {(error.strerror or text)[:200]}; check the disk and its permissions"
    return f"is damaged, cut short or no torch file ({text}); get it again"
