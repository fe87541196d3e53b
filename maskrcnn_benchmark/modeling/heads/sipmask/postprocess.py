"""From coefficients and basis masks to masks of the image's original size (Cao et al. 2020, section 3)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.layers.quadrant_masks import assemble_masks
from maskrcnn_benchmark.modeling.heads.sipmask.targets import BASIS_STRIDE, GRID
from maskrcnn_benchmark.structures.geometry import ImageGeometry

MASK_RESIZES = ("legacy", "legacy_axes", "exact")
"""How planes of the basis become masks: "legacy" (one factor for both axes, whole result sizes), with
"legacy_axes" (a factor per axis in single precision, which drops the last row of some sizes), as published;
"exact" (every pixel at its location).
"""


def assemble_full_masks(
    coefficients: Tensor,
    basis: Tensor,
    boxes: Tensor,
    geometry: ImageGeometry,
    *,
    threshold: float,
    resize: str,
) -> Tensor:
    """Masks (n, H, W) bool of the image's original size (H, W).

    coefficients: (n, 4K); basis: (K, h, w); boxes: (n, 4) xyxy in pixels of the network input. A pixel is set
    when the resized probability is above `threshold`. resize: one of MASK_RESIZES.
    """
    height, width = geometry.original_size
    if resize == "exact":
        # Pixels of the basis per pixel of the original.
        input_height, input_width = geometry.input_size
        steps = input_height / height / BASIS_STRIDE, input_width / width / BASIS_STRIDE
        rows, columns = height, width
    else:
        steps = (0.0, 0.0)  # from the sizes of the planes
        rows, columns = (
            math.floor(side * _plane_factor(scale, resize))
            for side, scale in zip(basis.shape[1:], resize_scale(geometry, resize), strict=True)
        )
    if min(rows, columns) < 1:
        return torch.zeros((len(boxes), height, width), dtype=torch.bool, device=boxes.device)
    basis_boxes = boxes / BASIS_STRIDE
    return assemble_masks(
        coefficients, basis, basis_boxes, GRID, rows, columns, height, width, threshold, *steps
    )


def resize_scale(geometry: ImageGeometry, resize: str) -> tuple[float, float]:
    """Input pixels per pixel of the file (vertical, horizontal); parity: "legacy" takes the smaller twice."""
    vertical, horizontal = geometry.scale
    return (min(vertical, horizontal),) * 2 if resize == "legacy" else (vertical, horizontal)


def _plane_factor(scale: float, resize: str) -> float:
    """Pixels of the original per pixel of the basis, along one side."""
    if resize == "legacy_axes":
        return float(np.float32(BASIS_STRIDE) / np.float32(scale))
    return BASIS_STRIDE / scale
