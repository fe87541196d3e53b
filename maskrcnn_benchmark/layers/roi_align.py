"""RoIAlign (He et al. 2017, section 3) as the published models have it: no half-pixel shift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.utils.native import load_ops, register_op


def roi_align(
    features: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float, sampling_ratio: int
) -> Tensor:
    """Average of bilinear samples per bin: (R, C, *output_size) in the dtype of `features`.

    features: (B, C, H, W); rois: (R, 5) rows (image index, x1, y1, x2, y2) in image coordinates, which
    `spatial_scale` maps to the features without a half-pixel shift; a side is at least one feature pixel.
    sampling_ratio: samples per bin and axis, 0 for ceil(side / bins). Samples more than a feature pixel
    outside the map count as zero. An RoI with a NaN or an infinite value gives NaN. Half precision is summed
    in float32; pass `rois` in float32, since half precision cannot hold coordinates. Differentiable, even
    twice, in features. Raises ValueError (shapes, devices, ranges, on the CPU image indices) and TypeError
    (dtypes).
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
        """(B, C, H, W), (R, 5) -> (R, C, *output_size)."""
        return roi_align(features, rois, self.output_size, self.spatial_scale, self.sampling_ratio)

    def extra_repr(self) -> str:
        """Arguments for printing."""
        return f"{self.output_size}, scale={self.spatial_scale}, sampling_ratio={self.sampling_ratio}"


# The operation is linear in the features; it and its backward pass are each other's derivative.


def _roi_align_fake(
    features: Tensor, rois: Tensor, spatial_scale: float, pooled_h: int, pooled_w: int, sampling_ratio: int
) -> Tensor:
    return features.new_empty((rois.shape[0], features.shape[1], pooled_h, pooled_w))


def _roi_align_backward_fake(
    grad: Tensor,
    rois: Tensor,
    spatial_scale: float,
    batch: int,
    channels: int,
    height: int,
    width: int,
    sampling_ratio: int,
) -> Tensor:
    return grad.new_empty((batch, channels, height, width))


def _save_roi_align(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    features, rois, ctx.spatial_scale, _, _, ctx.sampling_ratio = inputs
    ctx.shape = features.shape
    ctx.save_for_backward(rois)


def _roi_align_grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if not ctx.needs_input_grad[0]:
        return (None,) * 6
    (rois,) = ctx.saved_tensors
    backward = torch.ops.maskrcnn_benchmark.roi_align_backward
    return backward(grad, rois, ctx.spatial_scale, *ctx.shape, ctx.sampling_ratio), *(None,) * 5


def _save_roi_align_backward(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    grad, rois, ctx.spatial_scale, *_, ctx.sampling_ratio = inputs
    ctx.pooled_size = grad.shape[2:]
    ctx.save_for_backward(rois)


def _roi_align_double_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if not ctx.needs_input_grad[0]:
        return (None,) * 8
    (rois,) = ctx.saved_tensors
    forward = torch.ops.maskrcnn_benchmark.roi_align
    return forward(grad, rois, ctx.spatial_scale, *ctx.pooled_size, ctx.sampling_ratio), *(None,) * 7


register_op("roi_align", fake=_roi_align_fake, backward=_roi_align_grad, setup_context=_save_roi_align)
register_op(
    "roi_align_backward",
    fake=_roi_align_backward_fake,
    backward=_roi_align_double_backward,
    setup_context=_save_roi_align_backward,
)
