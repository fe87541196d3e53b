"""ROI max pooling (Girshick, Fast R-CNN, 2015; core spec 16)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.layers._ops import load_ops


def roi_pool(features: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float) -> Tensor:
    """Maximum of the cells of every bin: (R, C, *output_size) in the dtype of `features`.

    features: (B,C,H,W); rois: (R,5) rows (image index, x1, y1, x2, y2) in image coordinates, best in
    float32. Corners times `spatial_scale` are rounded half away from zero, both ends belong to the region (at
    least one cell per side). A bin without a cell on the map is 0. A roi with a NaN or an infinite number
    gives NaN. Differentiable, even twice, in features: the gradient goes to the first of equal maxima.
    Raises ValueError (shapes, devices, ranges, on the CPU image indices) and TypeError (dtypes).
    """
    load_ops()
    height, width = output_size
    return torch.ops.maskrcnn_benchmark.roi_pool(features, rois, float(spatial_scale), height, width)[0]


class ROIPool(nn.Module):
    """`roi_pool` with fixed output size and scale."""

    def __init__(self, output_size: tuple[int, int], spatial_scale: float) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        """(B,C,H,W), (R,5) -> (R,C,*output_size)."""
        return roi_pool(features, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        """Settings for printing."""
        return f"{self.output_size}, scale={self.spatial_scale}"
