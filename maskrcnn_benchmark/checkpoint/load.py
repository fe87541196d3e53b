"""Start a model from a weight file of any published family."""

from __future__ import annotations

import logging
import os

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.checkpoint.completeness import refuse_incomplete, refuse_part_of_a_head
from maskrcnn_benchmark.checkpoint.download import fetch, is_url
from maskrcnn_benchmark.checkpoint.families.base import WeightFamily
from maskrcnn_benchmark.checkpoint.families.table import family_of
from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.checkpoint.matching import (
    MatchReport,
    deform_names,
    match_names,
    strip_module_prefix,
)
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.structures.class_list import ClassList
from maskrcnn_benchmark.utils.errors import CheckpointError
from maskrcnn_benchmark.utils.files import StrPath

_LISTED = 6  # mismatches that an error message names
_logger = logging.getLogger(__name__)


def read_weights(path: StrPath, *, conv_body: str, device: str = "cpu") -> dict[str, Tensor]:
    """Tensors of a file (or of a URL), shapes (...,) as in the model, under its names or tails of them.

    Reads every family of `checkpoint/families/`. Optimizer state, schedule and iteration in the file are
    ignored.

    Args:
        conv_body: MODEL.BACKBONE.CONV_BODY; Caffe2 names depend on the depth.
        device: "meta" gives names and shapes without values (`read_checkpoint`).

    Raises:
        CheckpointError: the file cannot be downloaded or read.
    """
    family, state, _ = _read(path, device)
    return family.to_ours(state, conv_body)


def _read(path: StrPath, device: str) -> tuple[WeightFamily, dict[str, Tensor], ClassList | None]:
    """The family of a file, its tensors without `module.`, and its class list."""
    name = os.fspath(path)
    local = os.fspath(fetch(name)) if is_url(name) else name
    content = read_checkpoint(local, device)
    state = strip_module_prefix(content["model"])
    return family_of(state, local), state, ClassList.stored(content, f"checkpoint {name}")


@torch.no_grad()
def load_weights(
    model: nn.Module,
    path: StrPath,
    *,
    conv_body: str,
    allow_mismatch: bool = False,
    complete: bool = False,
) -> MatchReport:
    """Copy the weights of a file into `model` and log what fits and what does not.

    The attribute `class_list` of the model becomes the list that the file carries, or None.

    Args:
        path: file or URL (catalog names are resolved by `config.weights.resolve_weight`).
        conv_body: MODEL.BACKBONE.CONV_BODY.
        allow_mismatch: leave tensors of another shape at their initial values (fine-tuning with other
            classes) instead of refusing the file, and so the head of one-stage models where the file has
            only a part of it.
        complete: the model will detect with these weights as they are.

    Returns:
        The report of all names. Missing and unexpected names are reported, not refused, except for a part of
        a one-stage head and with `complete`.

    Raises:
        CheckpointError: the file cannot be read, no name of it fits, a shape differs, names are missing or
            unexpected (see above), or the model's batch norm has another epsilon than the file's.
    """
    family, content, classes = _read(path, "cpu")
    _require_epsilon(model, family, path)
    targets = model.state_dict(keep_vars=True)
    state = deform_names(family.to_ours(content, conv_body), targets)
    report = match_names(
        {name: tuple(t.shape) for name, t in targets.items()},
        {name: tuple(t.shape) for name, t in state.items()},
    )
    _refuse(report, path, allow_mismatch)
    if complete:
        refuse_incomplete(report, path)
    elif not allow_mismatch:
        refuse_part_of_a_head(report, path)
    model.class_list = classes  # type: ignore[assignment]
    for name, in_file in report.matched.items():
        targets[name].copy_(state[in_file])
    for index, line in enumerate(report.lines()):
        _logger.info("%s%s", f"{path}: " if index == 0 else "", line)
    return report


def _require_epsilon(model: nn.Module, family: WeightFamily, path: StrPath) -> None:
    """CheckpointError for a model whose fixed batch norm would misread the variances of the family."""
    epsilon = family.frozen_bn_eps
    wrong = {m.eps for m in model.modules() if isinstance(m, FrozenBatchNorm2d) and m.eps != epsilon}
    if epsilon is not None and wrong:
        raise CheckpointError(
            f"{path} is a {family.name} file, whose batch norm adds {epsilon:g} to the variance; set MODEL."
            f"RESNETS.FROZEN_BN_EPS {epsilon:g} (now {wrong.pop():g}) as {family.example_configs} do"
        )


def _refuse(report: MatchReport, path: StrPath, allow_mismatch: bool) -> None:
    """CheckpointError for other shapes, unless they are allowed, and for a file of which nothing fits."""
    if report.mismatched and not allow_mismatch:
        listed = "; ".join(
            f"{m.model_name} has shape {m.file_shape} in the file and {m.model_shape} in the model"
            for m in report.mismatched[:_LISTED]
        )
        if len(report.mismatched) > _LISTED:
            listed += f" (and {len(report.mismatched) - _LISTED} more)"
        raise CheckpointError(
            f"{path}: {listed}; check MODEL.BACKBONE.CONV_BODY and NUM_CLASSES, or set "
            "MODEL.WEIGHT_ALLOW_MISMATCH True to leave such tensors out"
        )
    if not report.matched:
        in_file = [m.file_name for m in report.mismatched] + report.unexpected
        in_model = [m.model_name for m in report.mismatched] + report.missing
        raise CheckpointError(
            f"{path}: no tensor of the file fits the model; it begins with {in_file[:3]}, the model with "
            f"{in_model[:3]}; check MODEL.WEIGHT"
        )
