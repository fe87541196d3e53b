"""Checks of names, shapes, sizes and trainable parameters of the LST model in every phase that is listed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from checks.checker import Checker
from checks.configs import config_from_diff
from checks.published import FPN
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.utils.files import read_json

CLASSIFIER = "roi_heads.box.predictor.cls_score.weight"
# The published LST model; depth, classes and freezing come from the reference file.
LST_MODEL: dict[str, Any] = FPN | {
    "MODEL.MASK_ON": True,
    "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR": "FPN2MLPCosineFeatureExtractor",
    "MODEL.ROI_BOX_HEAD.PREDICTOR": "FPNCosinePredictor",
    "MODEL.ROI_MASK_HEAD.USE_BBOX2MASK": True,
    "MODEL.ROI_MASK_HEAD.USE_MLPMASK": True,
}
BACKBONES = {6: "R-50-FPN", 23: "R-101-FPN", 36: "R-152-FPN"}


def check_parameters(path: Path, checker: Checker) -> None:
    """`parameters.json`: the base model and the steps that it lists differences for."""
    expected = read_json(path, what="reference file")
    blocks = {name.split(".")[3] for name in expected["base"] if name.startswith("backbone.body.layer3.")}
    with checker.section("parameters"):
        phases = {"base": {}} | expected["differences"]
        for phase, difference in phases.items():
            shapes = expected["base"] | difference
            kind = "base" if phase == "base" else "steps"
            lists = _lists(expected, kind)
            model = _build(BACKBONES[len(blocks)], shapes[CLASSIFIER][0], lists["freeze"])
            with checker.section(phase):
                _check_phase(model, shapes, lists, checker)
                _check_sizes(model, phase, expected, checker)


def _lists(expected: dict[str, Any], kind: str) -> dict[str, Any]:
    """Names and the number of frozen stages from keys like `trainable_base_freeze2`, for "base" or
    "steps".
    """
    lists: dict[str, Any] = {}
    for key, names in expected.items():
        parts = re.fullmatch(rf"(trainable|frozen_parameters)_{kind}_freeze(\d+)", key)
        if parts:
            lists |= {parts[1]: names, "freeze": int(parts[2])}
    return lists


def _build(backbone: str, outputs: int, freeze: int) -> nn.Module:
    settings = LST_MODEL | {
        "MODEL.BACKBONE.CONV_BODY": backbone,
        "MODEL.BACKBONE.FREEZE_CONV_BODY_AT": freeze,
        "MODEL.ROI_BOX_HEAD.NUM_CLASSES": outputs,
    }
    with torch.device("meta"):
        return build_detection_model(config_from_diff(settings))


def _check_phase(
    model: nn.Module, shapes: dict[str, list[int]], lists: dict[str, Any], checker: Checker
) -> None:
    got = [[name, list(tensor.shape)] for name, tensor in model.state_dict().items()]
    checker.same("state_dict", got, [[name, list(shape)] for name, shape in shapes.items()])
    for key, trainable in (("trainable", True), ("frozen_parameters", False)):
        if key in lists:
            names = [
                name for name, parameter in model.named_parameters() if parameter.requires_grad is trainable
            ]
            checker.same(key, names, lists[key])


def _check_sizes(model: nn.Module, phase: str, expected: dict[str, Any], checker: Checker) -> None:
    if phase in expected["n_parameters"]:
        parameters = list(model.parameters())
        checker.equal("n_parameters", sum(p.numel() for p in parameters), expected["n_parameters"][phase])
        size = sum(p.numel() for p in parameters if p.requires_grad)
        checker.equal("n_trainable", size, expected["n_trainable"][phase])
