"""ROIAlign (He et al., Mask R-CNN, 2017) as the published models have it: not "aligned" (core spec 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.layers._ops import load_ops


def roi_align(
    features: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float, sampling_ratio: int
) -> Tensor:
    """Average of bilinear samples per bin: (R, C, *output_size) in the dtype of `features`.

    features: (B,C,H,W); rois: (R,5) rows (image index, x1, y1, x2, y2) in image coordinates, which
    `spatial_scale` maps to the features without a half-pixel shift; a side is at least one cell.
    sampling_ratio: samples per bin and axis, 0 for ceil(side / bins). Samples more than a cell outside count
    as zero. A roi with a NaN or an infinite number gives NaN. Half precision is summed in float32; pass
    `rois` in float32, since half precision cannot hold coordinates. Differentiable, even twice, in features.
    Raises ValueError (shapes, devices, ranges, on the CPU image indices) and TypeError (dtypes).
    """
    load_ops()
    height, width = output_size
    return torch.ops.maskrcnn_benchmark.roi_align(
        features, rois, float(spatial_scale), height, width, sampling_ratio
    )


class ROIAlign(nn.Module):
    """`roi_align` with fixed output size, scale and sampling ratio."""

    def __init__(self, output_size: tuple[int, int], spatial_scale: float, sampling_ratio: int) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        """(B,C,H,W), (R,5) -> (R,C,*output_size)."""
        return roi_align(features, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        """Settings for printing."""
        return f"{self.output_size}, scale={self.spatial_scale}, sampling_ratio={self.sampling_ratio}"
