"""What torch must know about fpn_roi_align besides its kernels: shapes without data, and derivatives.

The operation and its backward pass are linear in the features and each other's derivative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def fake_levels(
    boxes: Tensor, first_level: int, levels: int, canonical_level: int, canonical_size: float
) -> Tensor:
    """Int32 (N,)."""
    return boxes.new_empty((boxes.shape[0],), dtype=torch.int32)


def fake_forward(
    features: Sequence[Tensor],
    rois: Tensor,
    scales: Sequence[float],
    pooled_h: int,
    pooled_w: int,
    sampling_ratio: int,
    canonical_level: int,
    canonical_size: float,
) -> Tensor:
    """(R, C, pooled_h, pooled_w) like the features."""
    return features[0].new_empty((rois.shape[0], features[0].shape[1], pooled_h, pooled_w))


def fake_backward(
    grad: Tensor,
    rois: Tensor,
    scales: Sequence[float],
    batch: int,
    heights: Sequence[int],
    widths: Sequence[int],
    sampling_ratio: int,
    canonical_level: int,
    canonical_size: float,
    channels_last: bool,
) -> list[Tensor]:
    """One (batch, C, H_l, W_l) per level, in the asked layout."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return [
        torch.empty((batch, grad.shape[1], h, w), dtype=grad.dtype, device=grad.device, memory_format=layout)
        for h, w in zip(heights, widths, strict=True)
    ]


def save_forward(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    """Keep the regions, the sizes and whether all features are channels-last."""
    features, rois, ctx.scales, _, _, *ctx.rule = inputs
    ctx.batch = features[0].shape[0]
    ctx.heights = [f.shape[2] for f in features]
    ctx.widths = [f.shape[3] for f in features]
    ctx.channels_last = all(
        f.is_contiguous(memory_format=torch.channels_last) and not f.is_contiguous() for f in features
    )
    ctx.save_for_backward(rois)


def grad_forward(ctx: Any, grad: Tensor) -> tuple[list[Tensor] | list[None] | None, ...]:
    """Gradient of every level."""
    rest = (None,) * 7
    if not any(ctx.needs_input_grad[0]):
        return [None] * len(ctx.heights), *rest
    (rois,) = ctx.saved_tensors
    backward = torch.ops.maskrcnn_benchmark.fpn_roi_align_backward
    grads = backward(grad, rois, ctx.scales, ctx.batch, ctx.heights, ctx.widths, *ctx.rule, ctx.channels_last)
    return grads, *rest


def save_backward(ctx: Any, inputs: Sequence[Any], output: list[Tensor]) -> None:
    """Keep the regions and the pooled size."""
    grad, rois, ctx.scales, _, _, _, *ctx.rule, _ = inputs
    ctx.pooled = grad.shape[2:]
    ctx.save_for_backward(rois)


def grad_backward(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    """Gradient of the incoming gradient: pooling of the maps that come for the levels."""
    rest = (None,) * 9
    if not ctx.needs_input_grad[0]:
        return None, *rest
    (rois,) = ctx.saved_tensors
    forward = torch.ops.maskrcnn_benchmark.fpn_roi_align
    return forward(grads, rois, ctx.scales, *ctx.pooled, *ctx.rule), *rest
