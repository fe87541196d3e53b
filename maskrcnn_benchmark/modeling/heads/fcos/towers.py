"""Convolutions of FCOS: two towers that all levels share, and what is read from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.deform_conv import DFConv2d
from maskrcnn_benchmark.modeling.conv import normal_init

STD = 0.01
"""Deviation of all initial weights."""
GROUPS = 32
"""parity: groups of the group norms."""


@dataclass(frozen=True)
class TowerStyle:
    """How a tower is built: group norm or none, a bias in its convolutions, its last one deformable."""

    group_norm: bool = True
    bias: bool = True
    deformable: bool = False


def make_tower(channels: int, depth: int, style: TowerStyle) -> nn.Sequential:
    """`depth` times convolution 3x3, norm, ReLU as children 3i, 3i + 1, 3i + 2 (parity); the place of the
    norm stays empty without one.
    """
    layers: list[nn.Module] = []
    for i in range(depth):
        if style.deformable and i == depth - 1:
            conv: nn.Module = DFConv2d(channels, channels, modulated=True, bias=style.bias)
        else:
            conv = nn.Conv2d(channels, channels, 3, padding=1, bias=style.bias)
        norm = nn.GroupNorm(GROUPS, channels) if style.group_norm else nn.Identity()
        layers += [conv, norm, nn.ReLU(inplace=True)]
    tower = nn.Sequential(*layers)
    for module in tower.modules():
        if isinstance(module, nn.Conv2d):
            normal_init(module, STD)
    return tower


def prediction(channels: int, outputs: int) -> nn.Conv2d:
    """3x3 convolution that gives numbers, not features."""
    return normal_init(nn.Conv2d(channels, outputs, 3, padding=1), STD)


def class_logits(channels: int, num_classes: int, prior_probability: float) -> nn.Conv2d:
    """3x3 convolution to one logit per class, whose score is `prior_probability` before training."""
    conv = prediction(channels, num_classes)
    nn.init.constant_(conv.get_parameter("bias"), -math.log((1 - prior_probability) / prior_probability))
    return conv


class Scale(nn.Module):
    """A learned factor, `scale` (1,), 1 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """x times the factor."""
        return x * self.scale


class FCOSTowers(nn.Module):
    """Children `cls_tower`, `bbox_tower`, `cls_logits`, `bbox_pred`, `centerness`, `scales` (parity)."""

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        depth: int,
        levels: int,
        prior_probability: float,
        rectified: bool,
        centerness_on_boxes: bool,
        style: TowerStyle,
    ) -> None:
        """num_classes: without background. rectified: distances are rectified, in strides; else exponentials,
        in pixels. centerness_on_boxes: it is read from the box tower, else from the class tower.
        """
        super().__init__()
        self.rectified, self.centerness_on_boxes = rectified, centerness_on_boxes
        self.cls_tower = make_tower(channels, depth, style)
        self.bbox_tower = make_tower(channels, depth, style)
        self.cls_logits = class_logits(channels, num_classes, prior_probability)
        self.bbox_pred = prediction(channels, 4)
        self.centerness = prediction(channels, 1)
        self.scales = nn.ModuleList([Scale() for _ in range(levels)])

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Per level (B,C,H,W) -> logits (B,classes,H,W), distances (B,4,H,W) and centerness (B,1,H,W)."""
        logits, distances, centerness = [], [], []
        for feature, scale in zip(features, self.scales, strict=True):
            classes, boxes = self.cls_tower(feature), self.bbox_tower(feature)
            logits.append(self.cls_logits(classes))
            centerness.append(self.centerness(boxes if self.centerness_on_boxes else classes))
            raw = scale(self.bbox_pred(boxes)).float()
            distances.append(F.relu(raw) if self.rectified else raw.exp())
        return logits, distances, centerness
