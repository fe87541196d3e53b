"""Weights of torchvision: Faster, Mask and Keypoint R-CNN with FPN in both directions, and classifiers.

Values are equal but for batch norm, where torchvision adds an epsilon that our files hold in the variance
(parity with the published files). What differs beside the weights: torchvision strides in the 3x3
convolutions, trains on RGB images in [0, 1], gives its COCO detectors 91 classes, one per category id
(NUM_CLASSES 91), and measures boxes without the inclusive + 1. Names of a ResNet ("conv1",
"layer1.0.bn2" ...) are tails of the names of our backbone.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from maskrcnn_benchmark.checkpoint.families.base import COUNTER, VARIANCE, State, WeightFamily

BATCH_NORM_EPSILON = 1e-5  # parity: the value torchvision trains with
_IMAGES: dict[str, Any] = {
    "INPUT.TO_BGR255": False,
    "INPUT.PIXEL_MEAN": [0.485, 0.456, 0.406],
    "INPUT.PIXEL_STD": [0.229, 0.224, 0.225],
}
_RESNET = _IMAGES | {"MODEL.RESNETS.STRIDE_IN_1X1": False}
_MARK = "backbone.fpn.inner_blocks."
_RESNET_MARKS = ("conv1.weight", "bn1.running_var", "layer1.0.bn1.running_var")
_BOX, _MASK, _KEYPOINT = "roi_heads.box", "roi_heads.mask", "roi_heads.keypoint"
# Patterns of torchvision's names, newest layout and older ones, with their replacements.
_RULES: tuple[tuple[str, str], ...] = (
    (r"backbone\.body\.(conv1|bn1)\.", r"backbone.body.stem.\1."),
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.(?:0\.)?(weight|bias)$", r"backbone.fpn.fpn_inner{1}.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.(?:0\.)?(weight|bias)$", r"backbone.fpn.fpn_layer{1}.\2"),
    (r"rpn\.head\.conv\.(?:0\.0\.)?(weight|bias)$", r"rpn.head.conv.\1"),
    (r"roi_heads\.box_head\.", f"{_BOX}.feature_extractor."),
    (r"roi_heads\.box_predictor\.", f"{_BOX}.predictor."),
    (r"roi_heads\.mask_head\.mask_fcn(\d+)\.", rf"{_MASK}.feature_extractor.mask_fcn\1."),
    (r"roi_heads\.mask_head\.(\d+)\.0\.", rf"{_MASK}.feature_extractor.mask_fcn{{1}}."),
    (r"roi_heads\.mask_predictor\.", f"{_MASK}.predictor."),
    (r"roi_heads\.keypoint_head\.(\d+)\.", rf"{_KEYPOINT}.feature_extractor.conv_fcn{{2}}."),
    (r"roi_heads\.keypoint_predictor\.", f"{_KEYPOINT}.predictor."),
)
# The inverse, newest layout; {0}: index from 0, {-}: index of a layer when every layer has a ReLU.
_BACK: tuple[tuple[str, str], ...] = (
    (r"backbone\.body\.stem\.", "backbone.body."),
    (r"backbone\.fpn\.fpn_inner(\d+)\.", "backbone.fpn.inner_blocks.{0}.0."),
    (r"backbone\.fpn\.fpn_layer(\d+)\.", "backbone.fpn.layer_blocks.{0}.0."),
    (r"rpn\.head\.conv\.", "rpn.head.conv.0.0."),
    (r"roi_heads\.box\.feature_extractor\.", "roi_heads.box_head."),
    (r"roi_heads\.box\.predictor\.", "roi_heads.box_predictor."),
    (r"roi_heads\.mask\.feature_extractor\.mask_fcn(\d+)\.", "roi_heads.mask_head.{0}.0."),
    (r"roi_heads\.mask\.predictor\.", "roi_heads.mask_predictor."),
    (r"roi_heads\.keypoint\.feature_extractor\.conv_fcn(\d+)\.", "roi_heads.keypoint_head.{-}."),
    (r"roi_heads\.keypoint\.predictor\.", "roi_heads.keypoint_predictor."),
)


def from_torchvision(name: str) -> str:
    """Our name of a parameter of torchvision's detectors; other names stay as they are."""
    for pattern, template in _RULES:
        match = re.match(pattern, name)
        if match is not None:
            index = int(match.group(1)) if match.groups() and match.group(1).isdecimal() else 0
            head = match.expand(template.replace("{1}", str(index + 1)).replace("{2}", str(index // 2 + 1)))
            return head + name[match.end() :]
    return name


def to_torchvision(name: str) -> str:
    """Torchvision's name of one of our parameters; other names stay as they are."""
    for pattern, template in _BACK:
        match = re.match(pattern, name)
        if match is not None:
            index = int(match.group(1)) - 1 if match.groups() else 0
            return template.replace("{0}", str(index)).replace("{-}", str(2 * index)) + name[match.end() :]
    return name


def import_detector(state: State) -> dict[str, Tensor]:
    """Tensors of a detector under our names, shapes (...,) unchanged, with the epsilon in `running_var`."""
    return {from_torchvision(name): tensor for name, tensor in _with_epsilon(state, 1).items()}


def export_detector(state: State) -> dict[str, Tensor]:
    """The inverse, shapes (...,) unchanged; anchors, which torchvision does not store, are left out."""
    return {
        to_torchvision(name): tensor
        for name, tensor in _with_epsilon(state, -1).items()
        if "anchor_generator" not in name
    }


def import_resnet(state: State, conv_body: str) -> dict[str, Tensor]:
    """Tensors of the backbone, shapes (...,) unchanged, with the epsilon in `running_var`.

    The classifier is left out. Backbones called `torchvision/...` are torchvision's networks: their tensors
    stay as they are.
    """
    if conv_body.startswith("torchvision/"):
        return dict(state)
    return {name: tensor for name, tensor in _with_epsilon(state, 1).items() if not name.startswith("fc.")}


def _with_epsilon(state: State, sign: int) -> dict[str, Tensor]:
    """Tensors without counters of batches; the epsilon is added to (or taken from) the variances."""
    return {
        name: tensor + sign * BATCH_NORM_EPSILON if name.endswith(VARIANCE) else tensor
        for name, tensor in state.items()
        if not name.endswith(COUNTER)
    }


def _has_roi_heads(state: State) -> bool:
    return any(name.startswith("roi_heads.") for name in state)


TORCHVISION_DETECTOR = WeightFamily(
    name="torchvision detector",
    matches=lambda state, path: any(name.startswith(_MARK) for name in state) and _has_roi_heads(state),
    to_ours=lambda state, conv_body: import_detector(state),
    from_ours=export_detector,
    export_name="torchvision",
    holds=_has_roi_heads,
    expected_config=_RESNET,
)
TORCHVISION_RESNET = WeightFamily(
    name="torchvision ResNet",
    matches=lambda state, path: all(name in state for name in _RESNET_MARKS),
    to_ours=import_resnet,
    expected_config=_RESNET,
)
TORCHVISION_CLASSIFIER = WeightFamily(
    name="torchvision classifier",
    matches=lambda state, path: (
        bool(state) and all(n.startswith(("features.", "classifier.")) for n in state)
    ),
    expected_config=_IMAGES,
)
