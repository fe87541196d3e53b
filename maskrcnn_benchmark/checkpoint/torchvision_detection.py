"""Faster, Mask and Keypoint R-CNN with a pyramid: torchvision's names and ours, in both directions.

Weights are equal but for batch norm, where torchvision adds an epsilon that our files hold in the variance.
What differs beside the weights: torchvision strides in the 3x3 convolutions (MODEL.RESNETS.STRIDE_IN_1X1
False), trains on RGB images in [0, 1] (INPUT.TO_BGR255 False), gives COCO 91 class rows, one per category
id (NUM_CLASSES 91), and measures boxes without the inclusive + 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from maskrcnn_benchmark.checkpoint.torchvision_resnet import BATCH_NORM_EPSILON

_MARK = "backbone.fpn.inner_blocks."
_BOX, _MASK, _KEYPOINT = "roi_heads.box", "roi_heads.mask", "roi_heads.keypoint"
# Patterns of torchvision's names, newest layout and older ones, with what is put in their place.
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
# The same backwards, newest layout; {0}: one less than ours, {-}: the number of a layer followed by a ReLU.
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


def is_torchvision_detection(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is one of torchvision's two-stage detectors."""
    return any(name.startswith(_MARK) for name in state) and any(
        name.startswith("roi_heads.") for name in state
    )


def from_torchvision(name: str) -> str:
    """Our name of a parameter of torchvision's detectors; other names stay as they are."""
    for pattern, template in _RULES:
        found = re.match(pattern, name)
        if found is not None:
            number = int(found.group(1)) if found.groups() and found.group(1).isdecimal() else 0
            head = found.expand(template.replace("{1}", str(number + 1)).replace("{2}", str(number // 2 + 1)))
            return head + name[found.end() :]
    return name


def to_torchvision(name: str) -> str:
    """Torchvision's name of one of our parameters; other names stay as they are."""
    for pattern, template in _BACK:
        found = re.match(pattern, name)
        if found is not None:
            number = int(found.group(1)) - 1 if found.groups() else 0
            return template.replace("{0}", str(number)).replace("{-}", str(2 * number)) + name[found.end() :]
    return name


def import_torchvision_detection(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a torchvision detector under our names, with the epsilon in `running_var`."""
    return {
        from_torchvision(name): tensor + BATCH_NORM_EPSILON if name.endswith("running_var") else tensor
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }


def export_torchvision_detection(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse; anchors, which torchvision does not store, are left out."""
    return {
        to_torchvision(name): tensor - BATCH_NORM_EPSILON if name.endswith("running_var") else tensor
        for name, tensor in state.items()
        if "anchor_generator" not in name
    }
