"""Crop split: compose one plane from the sub-region planes of a box (Cao et al. 2020, SipMask).

SipMask predicts one mask for each sub-region of a box, a grid of `grid_size` x `grid_size` grid cells (2, the
argument of the published `CropSplit(2)`, gives four: top left, top right, bottom left, bottom right). Crop
split takes from each mask the grid cell that it is meant for, and puts 0 outside the box:

    mask 0 | mask 1
    -------+-------     inside the box, 0 around it
    mask 2 | mask 3

`quadrant_masks` does this without making the planes of all grid cells; these operations are for planes that
exist already, in the published layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.utils.native import load_ops, register_op


def crop_split(data: Tensor, boxes: Tensor, grid_size: int = 2) -> Tensor:
    """Compose (H, W, n) in the dtype of `data`: in a pixel of box i the plane of its grid cell, 0 outside.

    data: (grid_size * grid_size, H, W, n), grid cells counted row by row; boxes: (n, 4) xyxy in pixels of the
    plane. Pixel (x, y) is inside where x1 <= x < x2 and y1 <= y < y2; boxes may reach beyond the plane,
    inverted ones and those with a NaN are empty. A grid cell is (x2 - x1 + 0.1) / grid_size wide: the splits
    lie a little right of and below the even ones (parity: as published). Differentiable, even twice, in data.
    Raises ValueError (shapes, devices, grid_size outside 1..64) and TypeError (dtypes).
    """
    load_ops()
    return torch.ops.maskrcnn_benchmark.crop_split(data, boxes, grid_size)


def crop_split_gt(data: Tensor, boxes: Tensor) -> Tensor:
    """Crop `data` (H, W, n) to `boxes` (n, 4), 0 outside: (H, W, n), `crop_split` with one grid cell.

    Differentiable in data. Raises as `crop_split` does.
    """
    load_ops()
    return torch.ops.maskrcnn_benchmark.crop_split(data[None], boxes, 1)


# The operation is linear in the data; it and its backward pass are each other's derivative.


def _crop_split_fake(data: Tensor, boxes: Tensor, grid_size: int) -> Tensor:
    return data.new_empty(data.shape[1:])


def _crop_split_backward_fake(grad: Tensor, boxes: Tensor, grid_size: int) -> Tensor:
    return grad.new_empty((grid_size * grid_size, *grad.shape))


def _save_crop_split(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    _, boxes, ctx.grid_size = inputs
    ctx.save_for_backward(boxes)


def _crop_split_grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
    if not ctx.needs_input_grad[0]:
        return None, None, None
    (boxes,) = ctx.saved_tensors
    return torch.ops.maskrcnn_benchmark.crop_split_backward(grad, boxes, ctx.grid_size), None, None


def _crop_split_double_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
    if not ctx.needs_input_grad[0]:
        return None, None, None
    (boxes,) = ctx.saved_tensors
    return torch.ops.maskrcnn_benchmark.crop_split(grad, boxes, ctx.grid_size), None, None


register_op("crop_split", fake=_crop_split_fake, backward=_crop_split_grad, setup_context=_save_crop_split)
register_op(
    "crop_split_backward",
    fake=_crop_split_backward_fake,
    backward=_crop_split_double_backward,
    setup_context=_save_crop_split,
)
