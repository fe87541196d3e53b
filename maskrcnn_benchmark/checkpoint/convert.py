"""Describe, convert and verify weight files, for `tools/import_weights.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from maskrcnn_benchmark.checkpoint.completeness import needed_names
from maskrcnn_benchmark.checkpoint.download import fetch, is_url
from maskrcnn_benchmark.checkpoint.families.table import family_of, rename_from_ours
from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.checkpoint.load import read_weights
from maskrcnn_benchmark.checkpoint.matching import (
    deform_names,
    match_by_order,
    match_names,
    strip_module_prefix,
)
from maskrcnn_benchmark.structures.class_list import ClassList
from maskrcnn_benchmark.utils.errors import CheckpointError
from maskrcnn_benchmark.utils.files import StrPath
from maskrcnn_benchmark.utils.table import format_table

_DEPTH = 3


def describe_file(path: StrPath, *, shapes: bool = False) -> str:
    """Family, number of tensors and values, what else is in the file, tensors by module (or all of them).

    Raises:
        CheckpointError: the file cannot be read.
    """
    content = read_checkpoint(path, "meta")
    state: dict[str, Tensor] = strip_module_prefix(content["model"])
    values = sum(tensor.numel() for tensor in state.values())
    others = ", ".join(key for key in content if key != "model") or "nothing"
    title = f"{path}: {family_of(state, str(path)).name}, {len(state)} tensors, {values / 1e6:.2f} M values"
    if shapes:
        rows = [[name, str(tuple(t.shape)), str(t.dtype).removeprefix("torch.")] for name, t in state.items()]
        table = format_table(["name", "shape", "type"], rows)
    else:
        tensors: Counter[str] = Counter()
        size: Counter[str] = Counter()
        for name, tensor in state.items():
            module = ".".join(name.split(".")[:-1][:_DEPTH]) or name
            tensors[module] += 1
            size[module] += tensor.numel()
        table = format_table(["module", "tensors", "values"], [[m, tensors[m], size[m]] for m in tensors])
    return f"{title}; beside them: {others}\n{table}"


def convert_file(
    path: StrPath, *, to: str, conv_body: str, backbone: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The tensors of a file, of any shape (...,), under the names of another family.

    Args:
        to: one of `families.table.export_names`.
        conv_body: MODEL.BACKBONE.CONV_BODY of the model that they are for.
        backbone: tensors of the backbone: the file is paired with their names by order.

    Raises:
        CheckpointError: the file cannot be read, or not be converted.
    """
    if backbone is not None:
        state = strip_module_prefix(read_checkpoint(path)["model"])
        return match_by_order(state, backbone, where=str(path))
    state = read_weights(path, conv_body=conv_body)
    try:
        return rename_from_ours(state, to)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def with_class_list(path: StrPath, state: dict[str, Tensor]) -> dict[str, Any]:
    """Content of a weight file: `state` (tensors of any shape (...,)), and the class list of file `path`.

    Where that carries none it is `state` itself.
    """
    local = fetch(str(path)) if is_url(str(path)) else path
    classes = ClassList.stored(read_checkpoint(local, "meta", verify=False), str(path))
    return {**state} if classes is None else {"model": state, **classes.record()}


def verify(model: nn.Module, state: Mapping[str, Tensor], *, backbone_only: bool) -> tuple[list[str], bool]:
    """Report what a model takes from `state` (tensors of any shape (...,)), and whether it gets all it needs.

    It does when no shape differs and no tensor of the model is missing (`backbone_only`: of
    `backbone.body`); anchors, which follow from the config, are not needed, nor are counters of batch norm.
    """
    targets = model.state_dict()
    report = match_names(
        {name: tuple(t.shape) for name, t in targets.items()},
        {name: tuple(t.shape) for name, t in deform_names(state, targets).items()},
    )
    needed = [n for n in needed_names(report) if not backbone_only or n.startswith("backbone.body.")]
    return report.lines(), not needed and not report.mismatched
