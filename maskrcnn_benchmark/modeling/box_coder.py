"""Encoding of boxes as regression targets and back (Girshick et al. 2014, appendix C), inclusive pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000.0 / 16)
"""parity: upper limit of decoded log width and height, so that large deltas do not overflow."""


class BoxCoder:
    """Deltas (dx, dy, dw, dh) of a target box relative to a reference box, multiplied by `weights`.

    Widths are x2 - x1 + 1, centres x1 + width / 2. All arithmetic in float32.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        if len(weights) != 4 or min(weights) <= 0:
            raise ValueError(f"box coder weights must be four positive values, got {tuple(weights)}")
        self.weights = tuple(float(w) for w in weights)

    def encode(self, targets: Tensor, references: Tensor) -> Tensor:
        """Return deltas (N, 4) that turn xyxy `references` (N, 4) into xyxy `targets` (N, 4)."""
        ref_centre, ref_size = _centre_and_size(references.float())
        centre, size = _centre_and_size(targets.float())
        deltas = torch.cat(((centre - ref_centre) / ref_size, torch.log(size / ref_size)), dim=-1)
        return deltas * deltas.new_tensor(self.weights)

    def decode(self, deltas: Tensor, references: Tensor) -> Tensor:
        """Return xyxy boxes (N, 4*K) from deltas (N, 4*K) of K classes and references (N, 4).

        Any leading shape is allowed as long as both agree in it: (..., 4*K) with (..., 4).
        """
        shape = deltas.shape
        weights = deltas.new_tensor(self.weights, dtype=torch.float32)
        deltas = deltas.float().reshape(*shape[:-1], shape[-1] // 4, 4) / weights
        centre, size = _centre_and_size(references.float().unsqueeze(-2))
        new_centre = deltas[..., :2] * size + centre
        half = torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_SCALE)) * size * 0.5
        return torch.cat((new_centre - half, new_centre + half - 1), dim=-1).reshape(shape)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return centres (..., 2) and sizes (..., 2) of xyxy boxes (..., 4)."""
    size = boxes[..., 2:] - boxes[..., :2] + 1
    return boxes[..., :2] + 0.5 * size, size


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Clip xyxy boxes (..., 4) to an image of `size` (width, height): x in 0..w-1, y in 0..h-1."""
    limit = boxes.new_tensor((size[0] - 1, size[1] - 1, size[0] - 1, size[1] - 1))
    return torch.minimum(boxes.clamp(min=0), limit)
