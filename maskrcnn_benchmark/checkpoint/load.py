"""Starting a model from a weight file of any of the published families."""

from __future__ import annotations

import logging
import os

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.checkpoint.caffe2 import rename_blobs
from maskrcnn_benchmark.checkpoint.completeness import refuse_incomplete, refuse_part_of_a_head
from maskrcnn_benchmark.checkpoint.deformable import deform_names
from maskrcnn_benchmark.checkpoint.download import fetch, is_url
from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.checkpoint.matching import MatchReport, match_names, strip_module_prefix
from maskrcnn_benchmark.checkpoint.mmdet_sipmask import EPSILON, import_mmdet_sipmask, is_mmdet_sipmask
from maskrcnn_benchmark.checkpoint.torchvision_detection import (
    import_torchvision_detection,
    is_torchvision_detection,
)
from maskrcnn_benchmark.checkpoint.torchvision_resnet import import_torchvision_resnet, is_torchvision_resnet
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.utils.errors import CheckpointError
from maskrcnn_benchmark.utils.files import StrPath

_LISTED = 6  # mismatches that an error message names
_logger = logging.getLogger(__name__)


def read_weights(path: StrPath, *, conv_body: str, device: str = "cpu") -> dict[str, Tensor]:
    """Tensors of a file (or of a URL) under names that are names of the model or tails of them.

    Knows maskrcnn-benchmark files with and without `module.` (FCOS and SipMask-benchmark too), files
    written here, Caffe2 pickles, torchvision's ResNets and two-stage detectors, mmdetection's SipMask.
    Optimizer state, schedule and iteration in the file are not looked at.

    Args:
        conv_body: MODEL.BACKBONE.CONV_BODY; Caffe2 names depend on the depth.
        device: "meta" gives names and shapes without the numbers (`read_checkpoint`).

    Raises:
        CheckpointError: the file cannot be had or read.
    """
    return _named(*_read(path, device), conv_body)


def _read(path: StrPath, device: str) -> tuple[str, dict[str, Tensor]]:
    """The file on this machine, and its tensors without `module.`."""
    name = os.fspath(path)
    local = os.fspath(fetch(name)) if is_url(name) else name
    return local, strip_module_prefix(read_checkpoint(local, device)["model"])


def _named(local: str, state: dict[str, Tensor], conv_body: str) -> dict[str, Tensor]:
    """The tensors under our names."""
    if local.endswith(".pkl"):
        names = rename_blobs(list(state), conv_body)
        return {names[blob]: tensor for blob, tensor in state.items()}
    if is_torchvision_detection(state):
        return import_torchvision_detection(state)
    if is_mmdet_sipmask(state):
        return import_mmdet_sipmask(state)
    if is_torchvision_resnet(state) and not conv_body.startswith("torchvision/"):
        return import_torchvision_resnet(state)
    return state


@torch.no_grad()
def load_weights(
    model: nn.Module,
    path: StrPath,
    *,
    conv_body: str,
    allow_mismatch: bool = False,
    complete: bool = False,
) -> MatchReport:
    """Copy the weights of a file into `model` and log what fitted and what did not.

    Args:
        path: file or URL (catalog names are resolved by `config.weights.resolve_weight`).
        conv_body: MODEL.BACKBONE.CONV_BODY.
        allow_mismatch: leave tensors of another shape at their initial values (fine-tuning with other
            classes) instead of refusing the file, and so the head of one-stage models where the file has
            only a part of it.
        complete: the model is to detect with these weights as they are.

    Returns:
        The report of all names. Missing and unexpected names are reported, not refused, but for a part of a
        one-stage head and with `complete`.

    Raises:
        CheckpointError: the file cannot be read, no name of it fits, a shape differs, names are missing or
            unexpected (see above), or the model's batch norm has another epsilon than the file's.
    """
    local, read = _read(path, "cpu")
    if is_mmdet_sipmask(read):
        _require_epsilon(model, path)
    targets = model.state_dict(keep_vars=True)
    state = deform_names(_named(local, read, conv_body), targets)
    report = match_names(
        {name: tuple(t.shape) for name, t in targets.items()},
        {name: tuple(t.shape) for name, t in state.items()},
    )
    _refuse(report, path, allow_mismatch)
    if complete:
        refuse_incomplete(report, path)
    elif not allow_mismatch:
        refuse_part_of_a_head(report, path)
    for name, found in report.matched.items():
        targets[name].copy_(state[found])
    for number, line in enumerate(report.lines()):
        _logger.info("%s%s", f"{path}: " if number == 0 else "", line)
    return report


def _require_epsilon(model: nn.Module, path: StrPath) -> None:
    """CheckpointError for a model whose fixed batch norm would misread mmdetection's variances."""
    wrong = {m.eps for m in model.modules() if isinstance(m, FrozenBatchNorm2d) and m.eps != EPSILON}
    if wrong:
        raise CheckpointError(
            f"{path} is a file of mmdetection, whose batch norm adds {EPSILON:g} to the variance; set MODEL."
            f"RESNETS.FROZEN_BN_EPS {EPSILON:g} (now {wrong.pop():g}) as configs/sipmask/*_caffe_fpn_* do"
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
