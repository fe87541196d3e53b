"""Convolutions of RetinaNet: two towers that all levels share (Lin et al. 2017, section 4)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from maskrcnn_benchmark.modeling.conv import normal_init
from maskrcnn_benchmark.modeling.heads.common import prior_bias

STD = 0.01
"""std of all initial weights."""


class RetinaNetTowers(nn.Module):
    """`cls_tower` and `bbox_tower` (3x3, ReLU), each with one more convolution: `cls_logits`, `bbox_pred`."""

    def __init__(
        self, channels: int, num_classes: int, num_anchors: int, *, depth: int, prior_probability: float
    ) -> None:
        """num_classes: without background. prior_probability: score of every class before training."""
        super().__init__()
        self.cls_tower = _tower(channels, depth)
        self.bbox_tower = _tower(channels, depth)
        self.cls_logits = normal_init(nn.Conv2d(channels, num_anchors * num_classes, 3, padding=1), STD)
        self.bbox_pred = normal_init(nn.Conv2d(channels, num_anchors * 4, 3, padding=1), STD)
        nn.init.constant_(self.cls_logits.get_parameter("bias"), prior_bias(prior_probability))

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map levels (B, K, H, W) to logits (B, A*C, H, W), deltas (B, A*4, H, W), channel anchor*n + i."""
        logits = [self.cls_logits(self.cls_tower(feature)) for feature in features]
        deltas = [self.bbox_pred(self.bbox_tower(feature)) for feature in features]
        return logits, deltas


def _tower(channels: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [normal_init(nn.Conv2d(channels, channels, 3, padding=1), STD), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
