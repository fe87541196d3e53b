"""Describing, converting and trying weight files, for `tools/import_weights.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from torch import Tensor, nn

from maskrcnn_benchmark.checkpoint.completeness import needed_names
from maskrcnn_benchmark.checkpoint.deformable import deform_names
from maskrcnn_benchmark.checkpoint.families import OURS, by_order, family_of
from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.checkpoint.load import read_weights
from maskrcnn_benchmark.checkpoint.matching import match_names, strip_module_prefix
from maskrcnn_benchmark.checkpoint.mmdet_sipmask import export_mmdet_sipmask
from maskrcnn_benchmark.checkpoint.torchvision_detection import export_torchvision_detection
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
    title = f"{path}: {family_of(state, str(path))}, {len(state)} tensors, {values / 1e6:.2f} M values"
    if shapes:
        rows = [[name, str(tuple(t.shape)), str(t.dtype).removeprefix("torch.")] for name, t in state.items()]
        table = format_table(["name", "shape", "type"], rows)
    else:
        number: Counter[str] = Counter()
        size: Counter[str] = Counter()
        for name, tensor in state.items():
            module = ".".join(name.split(".")[:-1][:_DEPTH]) or name
            number[module] += 1
            size[module] += tensor.numel()
        table = format_table(["module", "tensors", "values"], [[m, number[m], size[m]] for m in number])
    return f"{title}; beside them: {others}\n{table}"


def convert_file(
    path: StrPath, *, to: str, conv_body: str, body: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The tensors of a file under the names of another family.

    Args:
        to: "ours", "torchvision" (two-stage detectors with a pyramid) or "mmdetection" (SipMask).
        conv_body: MODEL.BACKBONE.CONV_BODY of the model that they are for.
        body: names and shapes of the body: the file is paired with them by order.

    Raises:
        CheckpointError: the file cannot be read, or not be converted.
    """
    if body is not None:
        return by_order(strip_module_prefix(read_checkpoint(path)["model"]), body, where=str(path))
    state = read_weights(path, conv_body=conv_body)
    if to == "ours":
        return state
    if to == "mmdetection":
        return export_mmdet_sipmask(state)
    family = family_of(state)
    if family != OURS or not any(name.startswith("roi_heads.") for name in state):
        kind = "one-stage" if family == OURS else family
        raise CheckpointError(f"{path}: {kind} weights have no names in torchvision's detectors")
    return export_torchvision_detection(state)


def verify(model: nn.Module, state: Mapping[str, Tensor], *, body_only: bool) -> tuple[list[str], bool]:
    """What a model takes from `state`, in words, and whether it takes all that it needs.

    It does when no shape differs and no tensor of the model is missing (`body_only`: of `backbone.body`);
    anchors, which follow from the configuration, are not needed, nor are counters of batch norm.
    """
    targets = model.state_dict()
    report = match_names(
        {name: tuple(t.shape) for name, t in targets.items()},
        {name: tuple(t.shape) for name, t in deform_names(state, targets).items()},
    )
    needed = [n for n in needed_names(report) if not body_only or n.startswith("backbone.body.")]
    return report.lines(), not needed and not report.mismatched
