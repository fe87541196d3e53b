"""ROIAlign over a feature pyramid in one call: level assignment and pooling (core spec 8)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn_benchmark.layers._ops import load_ops

CANONICAL_SIZE = 224.0
CANONICAL_LEVEL = 4


def assign_levels(boxes: Tensor, min_level: int, max_level: int) -> Tensor:
    """Int64 (N,) pyramid level of xyxy boxes (N,4): floor(4 + log2(sqrt(area) / 224 + 1e-6)), clamped.

    Area has the inclusive +1 convention (Lin et al. 2017, equation 1); computed in float32. A box with a
    negative or NaN area gets `min_level`. Raises ValueError (shape, 1 to 16 levels) and TypeError (dtype).
    """
    load_ops()
    levels = torch.ops.maskrcnn_benchmark.fpn_levels(
        boxes, min_level, max_level - min_level + 1, CANONICAL_LEVEL, CANONICAL_SIZE
    )
    return levels.to(torch.int64) + min_level


def fpn_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    output_size: tuple[int, int],
    scales: Sequence[float],
    sampling_ratio: int,
) -> Tensor:
    """`roi_align` of each region from the level that `assign_levels` gives it: (R, C, *output_size).

    features: levels (B,C,H_l,W_l), finest first, of one dtype, in planar or channels-last layout (read as
    they are, with the same bits); rois: (R,5) rows (image index, x1, y1, x2, y2) in image coordinates, best
    in float32; scales: 2^-l, 2^-(l+1), ... for levels l, l+1, ... Differentiable, even twice,
    in features; gradients of channels-last features are channels-last. What `roi_align` says about samples,
    NaN and sums holds here. Raises ValueError (shapes, devices, ranges, scales, on the CPU image indices) and
    TypeError (dtypes).
    """
    load_ops()
    height, width = output_size
    return torch.ops.maskrcnn_benchmark.fpn_roi_align(
        list(features),
        rois,
        list(scales),
        height,
        width,
        sampling_ratio,
        CANONICAL_LEVEL,
        CANONICAL_SIZE,
    )
