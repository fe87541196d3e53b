"""Masks of boxes from shared basis maps, cell by cell (Cao et al., SipMask, 2020; sipmask spec 4 to 6).

Every instance has K coefficients for each cell of its box, cells x cells of them (`crop_split` explains the
split). Its mask is sigmoid(coefficients of the cell . basis) in the pixels of the cell and 0 outside the box.
Channel cell * K + k of the coefficients belongs to map k, cell = row * cells + column. Boxes are xyxy in
pixels of the basis maps; they may reach beyond them, inverted ones and those with a NaN are empty. The planes
of the cells are never made, and pixels outside the boxes cost nothing.

All inputs may be float32, float64, float16 or bfloat16, also mixed; numbers are computed in float32, or in
float64 where coefficients or basis are. Results and gradients are the same for any number of threads, and on
CUDA in every run.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.layers._ops import load_ops


def quadrant_masks(coefficients: Tensor, basis: Tensor, boxes: Tensor, cells: int = 2) -> Tensor:
    """Soft masks (n, H, W), float32 or float64.

    coefficients: (n, cells * cells * K); basis: (K,H,W); boxes: (n,4). Differentiable in coefficients and
    basis. Raises ValueError (shapes, devices, cells outside 1..64) and TypeError (dtypes).
    """
    load_ops()
    return torch.ops.maskrcnn_benchmark.quadrant_masks(coefficients, basis, boxes, cells)


def quadrant_mask_loss(
    coefficients: Tensor,
    basis: Tensor,
    boxes: Tensor,
    targets: Tensor,
    target_index: Tensor,
    cells: int = 2,
) -> Tensor:
    """Binary cross entropy (n,) between soft and true mask, summed over the pixels of each box.

    coefficients: (n, cells * cells * K); basis: (K,H,W); boxes: (n,4); targets: (m,H,W) bool or uint8, true
    where not 0; target_index: (n,) int64, the target of each instance. As torch's `binary_cross_entropy` of
    `quadrant_masks`: from the rounded probability, each logarithm ends at -100. No plane is stored, the
    backward pass computes it again. Differentiable in coefficients and basis. Raises ValueError (shapes,
    devices, cells, on the CPU an index outside 0..m-1; on CUDA that gives NaN) and TypeError (dtypes).
    """
    load_ops()
    op = torch.ops.maskrcnn_benchmark.quadrant_mask_loss
    return op(coefficients, basis, boxes, targets, target_index, cells)


def assemble_masks(
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
    """Bool (n, height, width): the soft masks resized, compared with `threshold`, cut or padded.

    coefficients: (n, cells * cells * K); basis: (K,H,W); boxes: (n,4) in pixels of the basis. The soft masks
    are resized to resized_h x resized_w, bilinear, as `interpolate(size=...)` does without aligned corners;
    the result holds the top left part of that `> threshold`, and False beyond it. Computed in float32, only
    where a mask can be; the soft masks are not stored. step_y, step_x: pixels of the basis per resized pixel,
    0 for the ratio of the sizes. Raises ValueError (shapes, devices, cells, an empty
    basis, resized sizes below 1, threshold outside 0..1) and TypeError (dtypes).
    """
    load_ops()
    op = torch.ops.maskrcnn_benchmark.assemble_masks
    sizes = (resized_h, resized_w, height, width)
    return op(coefficients, basis, boxes, cells, *sizes, float(threshold), float(step_y), float(step_x))
