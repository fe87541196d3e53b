"""RoIAlign over an FPN in one call: level assignment (Lin et al. 2017, FPN, section 4.2) and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.utils.native import is_channels_last, load_ops, register_op

CANONICAL_SIZE = 224.0
CANONICAL_LEVEL = 4


def assign_levels(boxes: Tensor, min_level: int, max_level: int) -> Tensor:
    """Assign xyxy boxes (N, 4) to FPN levels: int64 (N,), floor(4 + log2(sqrt(area) / 224 + 1e-6)), clamped.

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
    """`roi_align` of each RoI on the level that `assign_levels` gives it: (R, C, *output_size).

    features: levels (B, C, H_l, W_l), finest first, of one dtype, in planar or channels-last layout (read as
    they are, with the same bits); rois: (R, 5) rows (image index, x1, y1, x2, y2) in image coordinates, best
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


# The operation is linear in the features; it and its backward pass are each other's derivative.


def _fpn_levels_fake(
    boxes: Tensor, first_level: int, levels: int, canonical_level: int, canonical_size: float
) -> Tensor:
    return boxes.new_empty((boxes.shape[0],), dtype=torch.int32)


def _fpn_roi_align_fake(
    features: Sequence[Tensor],
    rois: Tensor,
    scales: Sequence[float],
    pooled_h: int,
    pooled_w: int,
    sampling_ratio: int,
    canonical_level: int,
    canonical_size: float,
) -> Tensor:
    return features[0].new_empty((rois.shape[0], features[0].shape[1], pooled_h, pooled_w))


def _fpn_roi_align_backward_fake(
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
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return [
        torch.empty((batch, grad.shape[1], h, w), dtype=grad.dtype, device=grad.device, memory_format=layout)
        for h, w in zip(heights, widths, strict=True)
    ]


def _save_fpn_roi_align(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    features, rois, ctx.scales, _, _, *ctx.sampling = inputs
    ctx.batch = features[0].shape[0]
    ctx.heights = [f.shape[2] for f in features]
    ctx.widths = [f.shape[3] for f in features]
    ctx.channels_last = all(is_channels_last(f) for f in features)
    ctx.save_for_backward(rois)


def _fpn_roi_align_grad(ctx: Any, grad: Tensor) -> tuple[list[Tensor] | list[None] | None, ...]:
    rest = (None,) * 7
    if not any(ctx.needs_input_grad[0]):
        return [None] * len(ctx.heights), *rest
    (rois,) = ctx.saved_tensors
    backward = torch.ops.maskrcnn_benchmark.fpn_roi_align_backward
    sizes = (ctx.batch, ctx.heights, ctx.widths)
    return backward(grad, rois, ctx.scales, *sizes, *ctx.sampling, ctx.channels_last), *rest


def _save_fpn_roi_align_backward(ctx: Any, inputs: Sequence[Any], output: list[Tensor]) -> None:
    grad, rois, ctx.scales, _, _, _, *ctx.sampling, _ = inputs
    ctx.pooled_size = grad.shape[2:]
    ctx.save_for_backward(rois)


def _fpn_roi_align_double_backward(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    rest = (None,) * 9
    if not ctx.needs_input_grad[0]:
        return None, *rest
    (rois,) = ctx.saved_tensors
    forward = torch.ops.maskrcnn_benchmark.fpn_roi_align
    return forward(grads, rois, ctx.scales, *ctx.pooled_size, *ctx.sampling), *rest


register_op("fpn_levels", fake=_fpn_levels_fake)
register_op(
    "fpn_roi_align",
    fake=_fpn_roi_align_fake,
    backward=_fpn_roi_align_grad,
    setup_context=_save_fpn_roi_align,
)
register_op(
    "fpn_roi_align_backward",
    fake=_fpn_roi_align_backward_fake,
    backward=_fpn_roi_align_double_backward,
    setup_context=_save_fpn_roi_align_backward,
)
