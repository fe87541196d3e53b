"""From coefficients and basis masks to masks of the image's size (spec section 6)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.layers.quadrant_masks import assemble_masks
from maskrcnn_benchmark.modeling.heads.sipmask.outputs import BASIS_STRIDE, CELLS
from maskrcnn_benchmark.structures.geometry import ImageGeometry

Pair = tuple[float, float]


MASK_RESIZES = ("legacy", "legacy_axes", "exact")
"""How planes of basis cells become masks: "legacy" (one factor for both axes, whole result sizes), with
"legacy_axes" (a factor per axis in single precision, which drops the last row of some sizes), as published;
"exact" (every pixel at its place).
"""


def full_image_masks(
    coefficients: Tensor,
    basis: Tensor,
    boxes: Tensor,
    geometry: ImageGeometry,
    *,
    threshold: float,
    resize: str,
) -> Tensor:
    """Masks (n,H,W) bool at the image's original size.

    coefficients: (n,4K); basis: (K,h,w); boxes: (n,4) in pixels of the network input. A pixel is set when
    the resized probability is above `threshold`. Resizing is one of MASK_RESIZES.
    """
    height, width = geometry.original_size
    if resize == "exact":
        # Cells per pixel of the original: BASIS_STRIDE pixels of the input make a cell.
        steps = geometry.input_size[0] / height / BASIS_STRIDE, geometry.input_size[1] / width / BASIS_STRIDE
        rows, columns = height, width
    else:
        steps = (0.0, 0.0)  # as the sizes have it
        rows, columns = (
            math.floor(side * _factor(scale, resize))
            for side, scale in zip(basis.shape[1:], resize_factors(geometry, resize), strict=True)
        )
    if min(rows, columns) < 1:
        return torch.zeros((len(boxes), height, width), dtype=torch.bool, device=boxes.device)
    cells = boxes / BASIS_STRIDE
    return assemble_masks(coefficients, basis, cells, CELLS, rows, columns, height, width, threshold, *steps)


def resize_factors(geometry: ImageGeometry, resize: str) -> Pair:
    """Input pixels per pixel of the file (vertical, horizontal); "legacy" takes the smaller for both."""
    vertical, horizontal = geometry.scale
    return (min(vertical, horizontal),) * 2 if resize == "legacy" else (vertical, horizontal)


def _factor(scale: float, resize: str) -> float:
    """Size of a plane's side at the original image, against the plane's."""
    if resize == "legacy_axes":
        return float(np.float32(BASIS_STRIDE) / np.float32(scale))
    return BASIS_STRIDE / scale
