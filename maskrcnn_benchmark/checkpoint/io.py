"""Read and write checkpoint files: nothing in a file is executed, and a write is whole or absent."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.checkpoint.pickled_arrays import read_blobs
from maskrcnn_benchmark.utils.errors import CheckpointError
from maskrcnn_benchmark.utils.files import StrPath, atomic_path


def read_checkpoint(path: StrPath, device: str = "cpu") -> dict[str, Any]:
    """Read a weight file onto the CPU, or with `device` "meta" names and shapes without values.

    `.pkl` is Caffe2 (blob names stay as they are; always on the CPU); everything else is a torch file that
    holds a dict with `model` (and perhaps optimizer, iteration, classes ...), a dict with `state_dict`
    and `meta` (mmdetection), or a bare state dict.

    Returns:
        A dict with at least `model`: tensors by name. Prefixes such as `module.` stay. Class names of
        mmdetection's `meta` are put under `classes`, background first.

    Raises:
        CheckpointError: the file is missing, truncated, foreign, or holds objects other than tensors,
            scalars, text and containers of them.
    """
    if str(path).endswith(".pkl"):
        return {"model": read_blobs(path)}
    if not Path(path).is_file():
        raise CheckpointError(f"weight file {path} does not exist; check MODEL.WEIGHT")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
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
    strange = next((n for n, value in model.items() if not isinstance(value, Tensor)), None)
    if strange is not None or not model:
        what = "is empty" if strange is None else f"{strange!r} is no tensor"
        raise CheckpointError(
            f"weight file {path} is neither a state dict nor a dict with one under 'model': {what}; "
            f"its keys begin with {', '.join(repr(k) for k in list(content)[:4]) or 'nothing'}"
        )
    result["model"] = dict(model)
    return result


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
    """Compare the content of a torch file with the checksums in it, which `torch.load` does not look at.

    Raises:
        CheckpointError: a sum is wrong, as after a fault of the disk.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except Exception as error:  # a damaged archive may raise anything
        raise CheckpointError(f"weight file {path} {_reason(error)}") from None
    if wrong is not None:
        raise CheckpointError(
            f"weight file {path} is damaged: the checksum of {wrong} is wrong; get it again"
        )


def _reason(error: Exception) -> str:
    """What went wrong, in words and in one line."""
    text = " ".join(str(error).split())
    if "Unsupported global" in text or "WeightsUnpickler" in text or "weights_only" in text.lower():
        refused = text.partition("Unsupported global: GLOBAL ")[2].partition(" ")[0]
        what = f" ({refused})" if refused else ""
        return (
            f"holds objects other than tensors, scalars and text{what} and is not read; where you trust it, "
            "save its state dict alone"
        )
    return f"is damaged, cut short or no torch file ({text[:120] or type(error).__name__}); get it again"
