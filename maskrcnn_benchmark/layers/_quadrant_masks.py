"""What torch must know about the quadrant masks besides kernels: shapes without data, and derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def wide_dtype(coefficients: Tensor, basis: Tensor) -> torch.dtype:
    """The dtype of results: float64 where an input is, else float32."""
    return torch.float64 if torch.float64 in (coefficients.dtype, basis.dtype) else torch.float32


def fake_masks(coefficients: Tensor, basis: Tensor, boxes: Tensor, cells: int) -> Tensor:
    """(n, H, W)."""
    shape = (coefficients.shape[0], *basis.shape[1:])
    return coefficients.new_empty(shape, dtype=wide_dtype(coefficients, basis))


def fake_masks_backward(
    grad: Tensor, masks: Tensor, coefficients: Tensor, basis: Tensor, boxes: Tensor, cells: int
) -> tuple[Tensor, Tensor]:
    """Like coefficients and basis."""
    return coefficients.new_empty(coefficients.shape), basis.new_empty(basis.shape)


def fake_loss(
    coefficients: Tensor, basis: Tensor, boxes: Tensor, targets: Tensor, target_index: Tensor, cells: int
) -> Tensor:
    """(n,)."""
    return coefficients.new_empty(coefficients.shape[:1], dtype=wide_dtype(coefficients, basis))


def fake_loss_backward(
    grad: Tensor,
    coefficients: Tensor,
    basis: Tensor,
    boxes: Tensor,
    targets: Tensor,
    target_index: Tensor,
    cells: int,
) -> tuple[Tensor, Tensor]:
    """Like coefficients and basis."""
    return coefficients.new_empty(coefficients.shape), basis.new_empty(basis.shape)


def fake_assembled(
    coefficients: Tensor,
    basis: Tensor,
    boxes: Tensor,
    cells: int,
    resized_h: int,
    resized_w: int,
    height: int,
    width: int,
    threshold: float,
    step_y: float = 0.0,
    step_x: float = 0.0,
) -> Tensor:
    """Bool (n, height, width)."""
    return coefficients.new_empty((coefficients.shape[0], height, width), dtype=torch.bool)


def save_masks(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    """Keep the arguments and the result."""
    *tensors, ctx.cells = inputs
    ctx.save_for_backward(output, *tensors)


def grad_masks(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of coefficients and basis."""
    if not any(ctx.needs_input_grad):
        return (None,) * 4
    backward = torch.ops.maskrcnn_benchmark.quadrant_masks_backward
    return *backward(grad, *ctx.saved_tensors, ctx.cells), None, None


def save_loss(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    """Keep the arguments."""
    *tensors, ctx.cells = inputs
    ctx.save_for_backward(*tensors)


def grad_loss(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of coefficients and basis."""
    if not any(ctx.needs_input_grad):
        return (None,) * 6
    backward = torch.ops.maskrcnn_benchmark.quadrant_mask_loss_backward
    return *backward(grad, *ctx.saved_tensors, ctx.cells), None, None, None, None
