"""Convolutional head of the region proposal network (Ren et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.initialization import gaussian
from maskrcnn_benchmark.modeling.registry import RPN_HEADS

if TYPE_CHECKING:
    from yacs.config import CfgNode


@RPN_HEADS.register("SingleConvRPNHead")
class SingleConvRPNHead(nn.Module):
    """3x3 convolution, ReLU and two 1x1 convolutions, shared by all levels."""

    def __init__(self, in_channels: int, num_anchors: int) -> None:
        super().__init__()
        self.conv = gaussian(nn.Conv2d(in_channels, in_channels, 3, padding=1), std=0.01)
        self.cls_logits = gaussian(nn.Conv2d(in_channels, num_anchors, 1), std=0.01)
        self.bbox_pred = gaussian(nn.Conv2d(in_channels, num_anchors * 4, 1), std=0.01)

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int, num_anchors: int) -> SingleConvRPNHead:
        """No key of its own."""
        return cls(in_channels, num_anchors)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per level (B,C,H,W) -> logits (B,A,H,W) and deltas (B,4*A,H,W), channel = anchor*4 + part."""
        logits, deltas = [], []
        for feature in features:
            hidden = F.relu_(self.conv(feature))
            logits.append(self.cls_logits(hidden))
            deltas.append(self.bbox_pred(hidden))
        return logits, deltas


def flatten_levels(maps: Sequence[Tensor], width: int) -> list[Tensor]:
    """Head maps (B, A*width, H, W) -> per level float32 (B, H*W*A, width): order (row, column, anchor)."""
    return [
        m.reshape(m.shape[0], -1, width, *m.shape[-2:])
        .permute(0, 3, 4, 1, 2)
        .reshape(m.shape[0], -1, width)
        .float()
        for m in maps
    ]
