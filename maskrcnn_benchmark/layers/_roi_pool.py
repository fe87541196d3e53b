"""What torch must know about roi_pool besides its kernels: shapes without data, and derivatives.

With the places of the maxima given, pooling is linear, so its derivative has one too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def fake_forward(
    features: Tensor, rois: Tensor, spatial_scale: float, pooled_h: int, pooled_w: int
) -> tuple[Tensor, Tensor]:
    """Maxima (R, C, pooled_h, pooled_w) and their int32 places."""
    pooled = features.new_empty((rois.shape[0], features.shape[1], pooled_h, pooled_w))
    return pooled, torch.empty_like(pooled, dtype=torch.int32)


def fake_backward(
    grad: Tensor, rois: Tensor, argmax: Tensor, batch: int, channels: int, height: int, width: int
) -> Tensor:
    """(batch, channels, height, width)."""
    return grad.new_empty((batch, channels, height, width))


def save_forward(ctx: Any, inputs: Sequence[Any], output: tuple[Tensor, Tensor]) -> None:
    """Keep the regions, the places and the shape of the features."""
    features, rois, *_ = inputs
    ctx.shape = features.shape
    ctx.save_for_backward(rois, output[1])
    ctx.mark_non_differentiable(output[1])


def grad_forward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    """Gradient of the features."""
    if not ctx.needs_input_grad[0]:
        return (None,) * 5
    rois, argmax = ctx.saved_tensors
    return torch.ops.maskrcnn_benchmark.roi_pool_backward(grad, rois, argmax, *ctx.shape), *(None,) * 4


def save_backward(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    """Keep the regions and the places."""
    _, rois, argmax, *_ = inputs
    ctx.save_for_backward(rois, argmax)


def grad_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradient of the incoming gradient: the cells of `grad` (B,C,H,W) that hold the maxima."""
    if not ctx.needs_input_grad[0]:
        return (None,) * 7
    rois, argmax = ctx.saved_tensors
    channels, cells = grad.shape[1], grad.shape[2] * grad.shape[3]
    planes = rois[:, 0].to(torch.int64)[:, None] * channels + torch.arange(channels, device=rois.device)
    place = planes[:, :, None, None] * cells + argmax.clamp(min=0)
    return torch.where(argmax >= 0, grad.flatten()[place], 0), *(None,) * 6
