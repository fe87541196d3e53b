"""Convolutional head of the region proposal network (Ren et al. 2015, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.conv import normal_init
from maskrcnn_benchmark.modeling.heads.common import flatten_map
from maskrcnn_benchmark.modeling.registry import RPN_HEADS

if TYPE_CHECKING:
    from yacs.config import CfgNode


class RPNHead(nn.Module):
    """Base class of RPN heads.

    `forward` serves proposal selection, which reads every anchor and needs no gradient; `forward_sampled`
    serves the loss, which needs few anchors and their gradients.
    """

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map levels (B, C, H, W) to logits (B, A, H, W) and deltas (B, 4*A, H, W), channel 4*anchor + i."""
        raise NotImplementedError

    def forward_sampled(self, features: Sequence[Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 logits (K,) and deltas (K, 4) of sampled anchors, equal to those of `forward`.

        index: int64 (K,), image * (anchors per image) + anchor, with anchors in the order of
        `flatten_levels`, one level after the other.
        """
        raise NotImplementedError


@RPN_HEADS.register("SingleConvRPNHead")
class SingleConvRPNHead(RPNHead):
    """3x3 convolution, ReLU and two sibling 1x1 convolutions, shared by all levels."""

    def __init__(self, in_channels: int, num_anchors: int) -> None:
        super().__init__()
        self.conv = normal_init(nn.Conv2d(in_channels, in_channels, 3, padding=1), std=0.01)
        self.cls_logits = normal_init(nn.Conv2d(in_channels, num_anchors, 1), std=0.01)
        self.bbox_pred = normal_init(nn.Conv2d(in_channels, num_anchors * 4, 1), std=0.01)

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int, num_anchors: int) -> SingleConvRPNHead:
        """Build the head; it reads no config key."""
        return cls(in_channels, num_anchors)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map levels (B, C, H, W) to logits (B, A, H, W) and deltas (B, 4*A, H, W), channel 4*anchor + i."""
        logits, deltas = [], []
        for feature in features:
            hidden = F.relu_(self.conv(feature))
            logits.append(self.cls_logits(hidden))
            deltas.append(self.bbox_pred(hidden))
        return logits, deltas

    def forward_sampled(self, features: Sequence[Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 logits (K,) and deltas (K, 4) of sampled anchors; `index` as in RPNHead.

        Time and memory grow with K. The backward pass of the whole maps would spend up to twice the time of
        `forward` on gradients that are zero nearly everywhere.
        """
        num_anchors = self.cls_logits.out_channels
        sizes = [f.shape[-2] * f.shape[-1] * num_anchors for f in features]
        image, anchor = index // sum(sizes), index % sum(sizes)
        starts = [0, *accumulate(sizes)]
        level = torch.bucketize(anchor, torch.tensor(starts[1:], device=index.device), right=True)
        order = level.argsort(stable=True)
        counts = torch.bincount(level, minlength=len(sizes)).tolist()
        per_level = zip(
            features, starts, image[order].split(counts), anchor[order].split(counts), strict=False
        )
        patches = [_gather_patches(f, i, (a - start) // num_anchors) for f, start, i, a in per_level]
        hidden = F.relu_(_apply_to_patches(self.conv, torch.cat(patches)))
        channel = (anchor[order] % num_anchors)[
            :, None
        ]  # every level has a multiple of `num_anchors` anchors
        logits = _apply_to_patches(self.cls_logits, hidden).gather(1, channel)[:, 0]
        deltas = _apply_to_patches(self.bbox_pred, hidden).reshape(-1, num_anchors, 4)
        deltas = deltas.gather(1, channel[:, :, None].expand(-1, 1, 4))[:, 0]
        inverse = order.argsort()
        return logits[inverse].float(), deltas[inverse].float()


def _gather_patches(feature: Tensor, image: Tensor, location: Tensor) -> Tensor:
    """Gather 3x3 neighbourhoods (K, 9*C) of a map (B, C, H, W) around `location` (K,) = y * W + x.

    image: (K,) batch indices. Order (y, x, channel); zeros outside the map, as the convolution pads.
    """
    channels, height, width = feature.shape[1:]
    offsets = torch.arange(-1, 2, device=location.device)
    y = (location // width)[:, None, None] + offsets[:, None]
    x = (location % width)[:, None, None] + offsets
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    index = (image[:, None, None] * height + y) * width + x
    flat = feature.permute(0, 2, 3, 1).reshape(-1, channels)  # a view of channels-last maps
    values = flat.index_select(0, index.flatten()).reshape(-1, 9, channels)
    return (values * inside.reshape(-1, 9, 1).to(values.dtype)).flatten(1)


def _apply_to_patches(conv: nn.Conv2d, patches: Tensor) -> Tensor:
    """Apply a convolution at single locations: patches (K, k*k*C) -> (K, out_channels)."""
    return F.linear(patches, conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias)


def flatten_levels(maps: Sequence[Tensor], width: int) -> list[Tensor]:
    """Flatten the maps (B, A*width, H_l, W_l) of all levels to float32 (B, H_l*W_l*A, width)."""
    return [flatten_map(m, width).float() for m in maps]
