"""Convolutions of FCOS: two towers that all levels share, and what is predicted from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.deform_conv import DFConv2d
from maskrcnn_benchmark.modeling.conv import normal_init
from maskrcnn_benchmark.modeling.heads.common import prior_bias

STD = 0.01
"""std of all initial weights."""
GROUPS = 32
"""parity: groups of the group norms."""


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
        normalised_targets: bool,
        centerness_on_boxes: bool,
        deformable: bool = False,
    ) -> None:
        """num_classes: without background. normalised_targets: distances are rectified, in strides; else
        exponentials, in pixels. centerness_on_boxes: it is predicted from the box tower, else from the class
        tower. deformable: of the last convolution of both towers.
        """
        super().__init__()
        self.normalised_targets, self.centerness_on_boxes = normalised_targets, centerness_on_boxes
        self.cls_tower = conv_tower(channels, depth, deformable=deformable)
        self.bbox_tower = conv_tower(channels, depth, deformable=deformable)
        self.cls_logits = class_conv(channels, num_classes, prior_probability)
        self.bbox_pred = output_conv(channels, 4)
        self.centerness = output_conv(channels, 1)
        self.scales = nn.ModuleList([Scale() for _ in range(levels)])

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Map levels (B, K, H, W) to logits (B, C, H, W), distances (B, 4, H, W), centerness (B, 1, H, W)."""
        logits, distances, centerness = [], [], []
        for feature, scale in zip(features, self.scales, strict=True):
            classes, boxes = self.cls_tower(feature), self.bbox_tower(feature)
            logits.append(self.cls_logits(classes))
            centerness.append(self.centerness(boxes if self.centerness_on_boxes else classes))
            raw = scale(self.bbox_pred(boxes)).float()
            distances.append(F.relu(raw) if self.normalised_targets else raw.exp())
        return logits, distances, centerness


class Scale(nn.Module):
    """A learned factor, `scale` (1,), initially 1."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply `x`, of any shape such as (B, C, H, W), by the factor."""
        return x * self.scale


def conv_tower(
    channels: int, depth: int, *, group_norm: bool = True, bias: bool = True, deformable: bool = False
) -> nn.Sequential:
    """`depth` blocks of 3x3 convolution, norm, ReLU as children 3i, 3i + 1, 3i + 2 (parity).

    Without `group_norm` the norm is an Identity. deformable: of the last convolution.
    """
    layers: list[nn.Module] = []
    for i in range(depth):
        if deformable and i == depth - 1:
            conv: nn.Module = DFConv2d(channels, channels, modulated=True, bias=bias)
        else:
            conv = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        norm = nn.GroupNorm(GROUPS, channels) if group_norm else nn.Identity()
        layers += [conv, norm, nn.ReLU(inplace=True)]
    tower = nn.Sequential(*layers)
    for module in tower.modules():
        if isinstance(module, nn.Conv2d):
            normal_init(module, STD)
    return tower


def output_conv(channels: int, outputs: int) -> nn.Conv2d:
    """3x3 convolution to `outputs` predicted values per location."""
    return normal_init(nn.Conv2d(channels, outputs, 3, padding=1), STD)


def class_conv(channels: int, num_classes: int, prior_probability: float) -> nn.Conv2d:
    """3x3 convolution to one logit per class, whose score is `prior_probability` before training."""
    conv = output_conv(channels, num_classes)
    nn.init.constant_(conv.get_parameter("bias"), prior_bias(prior_probability))
    return conv
