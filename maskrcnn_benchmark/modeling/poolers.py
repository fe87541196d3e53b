"""RoIAlign over the levels of a feature pyramid (Lin et al. 2017, section 4.2; He et al. 2017, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.layers.fpn_roi_align import fpn_roi_align
from maskrcnn_benchmark.layers.roi_align import roi_align

if TYPE_CHECKING:
    from yacs.config import CfgNode


def to_rois(boxes: Sequence[Tensor]) -> Tensor:
    """Concatenate per-image boxes (n_i, 4) to float32 RoIs (sum n_i, 5): image index, x1, y1, x2, y2."""
    rois = torch.cat(list(boxes)).float()
    counts = [len(b) for b in boxes]
    image = torch.repeat_interleave(
        torch.arange(len(boxes), device=rois.device, dtype=rois.dtype),
        torch.tensor(counts, device=rois.device),
        output_size=sum(counts),
    )
    return torch.cat((image[:, None], rois), dim=1)


class Pooler(nn.Module):
    """RoIAlign from the FPN level that the size of a box selects.

    `scales` are those of the first len(scales) feature maps; with a single one all boxes are pooled from it.
    """

    def __init__(self, output_size: int, scales: Sequence[float], sampling_ratio: int) -> None:
        super().__init__()
        self.output_size = output_size
        self.scales = tuple(scales)
        self.sampling_ratio = sampling_ratio

    @classmethod
    def from_cfg(cls, node: CfgNode) -> Pooler:
        """Build from a head's node with POOLER_RESOLUTION, POOLER_SCALES and POOLER_SAMPLING_RATIO."""
        return cls(node.POOLER_RESOLUTION, node.POOLER_SCALES, node.POOLER_SAMPLING_RATIO)

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Pool per-image xyxy boxes (n_i, 4) from levels (B, C, H_l, W_l): (sum n_i, C, P, P), in order."""
        rois, size = to_rois(boxes), (self.output_size, self.output_size)
        levels = list(features)[: len(self.scales)]
        if len(self.scales) == 1:
            return roi_align(levels[0], rois, size, self.scales[0], self.sampling_ratio)
        return fpn_roi_align(levels, rois, size, self.scales, self.sampling_ratio)
