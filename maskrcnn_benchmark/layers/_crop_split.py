"""What torch must know about crop_split besides its kernels: shapes without data, and derivatives.

It and its backward pass are each other's derivative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Gradient = tuple[Tensor | None, None, None]


def fake_forward(data: Tensor, boxes: Tensor, cells: int) -> Tensor:
    """(H, W, n)."""
    return data.new_empty(data.shape[1:])


def fake_backward(grad: Tensor, boxes: Tensor, cells: int) -> Tensor:
    """(cells * cells, H, W, n)."""
    return grad.new_empty((cells * cells, *grad.shape))


def save(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    """Keep the boxes."""
    _, boxes, ctx.cells = inputs
    ctx.save_for_backward(boxes)


def grad_forward(ctx: Any, grad: Tensor) -> Gradient:
    """Gradient of the data."""
    if not ctx.needs_input_grad[0]:
        return None, None, None
    (boxes,) = ctx.saved_tensors
    return torch.ops.maskrcnn_benchmark.crop_split_backward(grad, boxes, ctx.cells), None, None


def grad_backward(ctx: Any, grad: Tensor) -> Gradient:
    """Gradient of the incoming gradient."""
    if not ctx.needs_input_grad[0]:
        return None, None, None
    (boxes,) = ctx.saved_tensors
    return torch.ops.maskrcnn_benchmark.crop_split(grad, boxes, ctx.cells), None, None
