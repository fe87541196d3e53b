"""Masks of boxes as linear combinations of basis maps, one per grid cell (Cao et al. 2020, SipMask).

Every instance has K coefficients for each grid cell of its box, a grid of grid_size x grid_size (`crop_split`
explains the split). Its mask is sigmoid(coefficients of the grid cell . basis) in the pixels of that cell and
0 outside the box. Channel cell * K + k of the coefficients belongs to map k, cell = row * grid_size + column.
Boxes are xyxy in pixels of the basis maps; they may reach beyond them, inverted ones and those with a NaN are
empty. The planes of the grid cells are never made, and pixels outside the boxes cost nothing.

All inputs may be float32, float64, float16 or bfloat16, also mixed; values are computed in float32, or in
float64 where coefficients or basis are. Results and gradients are the same for any number of threads, and on
CUDA in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.utils.native import load_ops, register_op


def quadrant_masks(coefficients: Tensor, basis: Tensor, boxes: Tensor, grid_size: int = 2) -> Tensor:
    """Soft masks (n, H, W), float32 or float64.

    coefficients: (n, grid_size * grid_size * K); basis: (K, H, W); boxes: (n, 4). Differentiable in
    coefficients and basis. Raises ValueError (shapes, devices, grid_size outside 1..64) and TypeError
    (dtypes).
    """
    load_ops()
    return torch.ops.maskrcnn_benchmark.quadrant_masks(coefficients, basis, boxes, grid_size)


def quadrant_mask_loss(
    coefficients: Tensor,
    basis: Tensor,
    boxes: Tensor,
    targets: Tensor,
    target_index: Tensor,
    grid_size: int = 2,
) -> Tensor:
    """Binary cross entropy (n,) between soft and target mask, summed over the pixels of each box.

    coefficients: (n, grid_size * grid_size * K); basis: (K, H, W); boxes: (n, 4); targets: (m, H, W) bool or
    uint8, true where not 0; target_index: (n,) int64, the target of each instance. As torch's
    `binary_cross_entropy` of `quadrant_masks`: from the rounded probability, each logarithm ends at -100. No
    plane is stored, the backward pass computes it again. Differentiable in coefficients and basis. Raises
    ValueError (shapes, devices, grid_size, on the CPU an index outside 0..m-1; on CUDA that gives NaN) and
    TypeError (dtypes).
    """
    load_ops()
    op = torch.ops.maskrcnn_benchmark.quadrant_mask_loss
    return op(coefficients, basis, boxes, targets, target_index, grid_size)


def assemble_masks(
    coefficients: Tensor,
    basis: Tensor,
    boxes: Tensor,
    grid_size: int,
    resized_h: int,
    resized_w: int,
    height: int,
    width: int,
    threshold: float,
    step_y: float = 0.0,
    step_x: float = 0.0,
) -> Tensor:
    """Binary masks (n, height, width): the soft masks resized, compared with `threshold`, cropped or padded.

    coefficients: (n, grid_size * grid_size * K); basis: (K, H, W); boxes: (n, 4) in pixels of the basis. The
    soft masks are resized to resized_h x resized_w, bilinear, as `interpolate(size=...)` does without aligned
    corners; the result holds the top left part of that `> threshold`, and False beyond it. Computed in
    float32, only where a mask can be; the soft masks are not stored. step_y, step_x: pixels of the basis per
    resized pixel, 0 for the ratio of the sizes. Raises ValueError (shapes, devices, grid_size, an empty
    basis, resized sizes below 1, threshold outside 0..1) and TypeError (dtypes).
    """
    load_ops()
    op = torch.ops.maskrcnn_benchmark.assemble_masks
    sizes = (resized_h, resized_w, height, width)
    return op(coefficients, basis, boxes, grid_size, *sizes, float(threshold), float(step_y), float(step_x))


def _accumulation_dtype(coefficients: Tensor, basis: Tensor) -> torch.dtype:
    """Float64 where an input is, else float32."""
    return torch.float64 if torch.float64 in (coefficients.dtype, basis.dtype) else torch.float32


def _quadrant_masks_fake(coefficients: Tensor, basis: Tensor, boxes: Tensor, grid_size: int) -> Tensor:
    shape = (coefficients.shape[0], *basis.shape[1:])
    return coefficients.new_empty(shape, dtype=_accumulation_dtype(coefficients, basis))


def _quadrant_masks_backward_fake(
    grad: Tensor, masks: Tensor, coefficients: Tensor, basis: Tensor, boxes: Tensor, grid_size: int
) -> tuple[Tensor, Tensor]:
    return coefficients.new_empty(coefficients.shape), basis.new_empty(basis.shape)


def _quadrant_mask_loss_fake(
    coefficients: Tensor, basis: Tensor, boxes: Tensor, targets: Tensor, target_index: Tensor, grid_size: int
) -> Tensor:
    return coefficients.new_empty(coefficients.shape[:1], dtype=_accumulation_dtype(coefficients, basis))


def _quadrant_mask_loss_backward_fake(
    grad: Tensor,
    coefficients: Tensor,
    basis: Tensor,
    boxes: Tensor,
    targets: Tensor,
    target_index: Tensor,
    grid_size: int,
) -> tuple[Tensor, Tensor]:
    return coefficients.new_empty(coefficients.shape), basis.new_empty(basis.shape)


def _assemble_masks_fake(
    coefficients: Tensor,
    basis: Tensor,
    boxes: Tensor,
    grid_size: int,
    resized_h: int,
    resized_w: int,
    height: int,
    width: int,
    threshold: float,
    step_y: float = 0.0,
    step_x: float = 0.0,
) -> Tensor:
    return coefficients.new_empty((coefficients.shape[0], height, width), dtype=torch.bool)


def _save_quadrant_masks(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    *tensors, ctx.grid_size = inputs
    ctx.save_for_backward(output, *tensors)


def _quadrant_masks_grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if not any(ctx.needs_input_grad):
        return (None,) * 4
    backward = torch.ops.maskrcnn_benchmark.quadrant_masks_backward
    return *backward(grad, *ctx.saved_tensors, ctx.grid_size), None, None


def _save_quadrant_mask_loss(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    *tensors, ctx.grid_size = inputs
    ctx.save_for_backward(*tensors)


def _quadrant_mask_loss_grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if not any(ctx.needs_input_grad):
        return (None,) * 6
    backward = torch.ops.maskrcnn_benchmark.quadrant_mask_loss_backward
    return *backward(grad, *ctx.saved_tensors, ctx.grid_size), None, None, None, None


register_op(
    "quadrant_masks",
    fake=_quadrant_masks_fake,
    backward=_quadrant_masks_grad,
    setup_context=_save_quadrant_masks,
)
register_op("quadrant_masks_backward", fake=_quadrant_masks_backward_fake)
register_op(
    "quadrant_mask_loss",
    fake=_quadrant_mask_loss_fake,
    backward=_quadrant_mask_loss_grad,
    setup_context=_save_quadrant_mask_loss,
)
register_op("quadrant_mask_loss_backward", fake=_quadrant_mask_loss_backward_fake)
register_op("assemble_masks", fake=_assemble_masks_fake)
