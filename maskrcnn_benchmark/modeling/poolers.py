"""Pooling of boxes from the right level of a feature pyramid (core spec 8)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.layers.roi_align import roi_align

if TYPE_CHECKING:
    from yacs.config import CfgNode

CANONICAL_SIZE = 224
CANONICAL_LEVEL = 4


def assign_levels(boxes: Tensor, min_level: int, max_level: int) -> Tensor:
    """Int64 (N,) pyramid level of xyxy boxes (N,4): floor(4 + log2(sqrt(area) / 224 + 1e-6)), clamped.

    Area has the inclusive +1 convention (Lin et al. 2017, equation 1).
    """
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    levels = torch.floor(CANONICAL_LEVEL + torch.log2(torch.sqrt(area) / CANONICAL_SIZE + 1e-6))
    return levels.clamp(min_level, max_level).to(torch.int64)


def to_rois(boxes: Sequence[Tensor]) -> Tensor:
    """Float32 (sum n_i, 5) rows (image index, x1, y1, x2, y2) from per-image boxes (n_i,4)."""
    rois = torch.cat(list(boxes)).float()
    counts = [len(b) for b in boxes]
    image = torch.repeat_interleave(
        torch.arange(len(boxes), device=rois.device, dtype=rois.dtype),
        torch.tensor(counts, device=rois.device),
        output_size=sum(counts),
    )
    return torch.cat((image[:, None], rois), dim=1)


class Pooler(nn.Module):
    """ROIAlign over one level per box; `scales` are those of the first len(scales) feature maps."""

    def __init__(self, output_size: int, scales: Sequence[float], sampling_ratio: int) -> None:
        super().__init__()
        self.output_size = output_size
        self.scales = tuple(scales)
        self.sampling_ratio = sampling_ratio
        self.min_level = round(-math.log2(scales[0]))
        self.max_level = round(-math.log2(scales[-1]))

    @classmethod
    def from_cfg(cls, node: CfgNode) -> Pooler:
        """From a head's node with POOLER_RESOLUTION, POOLER_SCALES and POOLER_SAMPLING_RATIO."""
        return cls(node.POOLER_RESOLUTION, node.POOLER_SCALES, node.POOLER_SAMPLING_RATIO)

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Levels (B,C,H_l,W_l) and per-image xyxy boxes (n_i,4) -> (sum n_i, C, P, P), boxes in order."""
        rois = to_rois(boxes)
        if len(self.scales) == 1:
            return self._pool(features[0], rois, self.scales[0])
        order, counts = self._group(rois)
        if max(counts) == len(rois):
            level = counts.index(len(rois))
            return self._pool(features[level], rois, self.scales[level])
        parts = [
            self._pool(feature, part, scale)
            for feature, part, scale in zip(features, rois[order].split(counts), self.scales, strict=False)
            if len(part)
        ]
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        return torch.cat(parts)[inverse]

    def _group(self, rois: Tensor) -> tuple[Tensor, list[int]]:
        """Order of the boxes by level (stable) and the number of boxes per level."""
        levels = assign_levels(rois[:, 1:], self.min_level, self.max_level) - self.min_level
        counts = torch.bincount(levels, minlength=len(self.scales)).tolist()
        return levels.argsort(stable=True), counts

    def _pool(self, feature: Tensor, rois: Tensor, scale: float) -> Tensor:
        return roi_align(feature, rois, (self.output_size, self.output_size), scale, self.sampling_ratio)
