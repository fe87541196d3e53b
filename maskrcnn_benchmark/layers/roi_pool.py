"""RoI max pooling (Girshick 2015, Fast R-CNN, section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.utils.native import load_ops, register_op


def roi_pool(features: Tensor, rois: Tensor, output_size: tuple[int, int], spatial_scale: float) -> Tensor:
    """Maximum of the feature pixels of every bin: (R, C, *output_size) in the dtype of `features`.

    features: (B, C, H, W); rois: (R, 5) rows (image index, x1, y1, x2, y2) in image coordinates, best in
    float32. Corners times `spatial_scale` are rounded half away from zero, both ends belong to the RoI (at
    least one pixel per side). A bin without a pixel on the map is 0. An RoI with a NaN or an infinite value
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
        """(B, C, H, W), (R, 5) -> (R, C, *output_size)."""
        return roi_pool(features, rois, self.output_size, self.spatial_scale)

    def extra_repr(self) -> str:
        """Arguments for printing."""
        return f"{self.output_size}, scale={self.spatial_scale}"


# With the indices of the maxima given, pooling is linear, so its derivative has one too.


def _roi_pool_fake(
    features: Tensor, rois: Tensor, spatial_scale: float, pooled_h: int, pooled_w: int
) -> tuple[Tensor, Tensor]:
    pooled = features.new_empty((rois.shape[0], features.shape[1], pooled_h, pooled_w))
    return pooled, torch.empty_like(pooled, dtype=torch.int32)


def _roi_pool_backward_fake(
    grad: Tensor, rois: Tensor, argmax: Tensor, batch: int, channels: int, height: int, width: int
) -> Tensor:
    return grad.new_empty((batch, channels, height, width))


def _save_roi_pool(ctx: Any, inputs: Sequence[Any], output: tuple[Tensor, Tensor]) -> None:
    features, rois, *_ = inputs
    ctx.shape = features.shape
    ctx.save_for_backward(rois, output[1])
    ctx.mark_non_differentiable(output[1])


def _roi_pool_grad(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if not ctx.needs_input_grad[0]:
        return (None,) * 5
    rois, argmax = ctx.saved_tensors
    return torch.ops.maskrcnn_benchmark.roi_pool_backward(grad, rois, argmax, *ctx.shape), *(None,) * 4


def _save_roi_pool_backward(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    _, rois, argmax, *_ = inputs
    ctx.save_for_backward(rois, argmax)


def _roi_pool_double_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gather from `grad` (B, C, H, W) the pixels that hold the maxima: (R, C, pooled_h, pooled_w)."""
    if not ctx.needs_input_grad[0]:
        return (None,) * 7
    rois, argmax = ctx.saved_tensors
    channels, area = grad.shape[1], grad.shape[2] * grad.shape[3]
    planes = rois[:, 0].to(torch.int64)[:, None] * channels + torch.arange(channels, device=rois.device)
    index = planes[:, :, None, None] * area + argmax.clamp(min=0)
    return torch.where(argmax >= 0, grad.flatten()[index], 0), *(None,) * 6


register_op("roi_pool", fake=_roi_pool_fake, backward=_roi_pool_grad, setup_context=_save_roi_pool)
register_op(
    "roi_pool_backward",
    fake=_roi_pool_backward_fake,
    backward=_roi_pool_double_backward,
    setup_context=_save_roi_pool_backward,
)
