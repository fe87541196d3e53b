"""What SipMask computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from maskrcnn_benchmark.modeling.heads.fcos.outputs import FCOSOutputs

CELLS = 2
"""Cells per side of a box: each quadrant has its own coefficients."""
BASIS_STRIDE = 2
"""Pixels of the network input per cell of the basis masks."""


@dataclass(frozen=True)
class SipMaskOutputs:
    """`boxes`: what FCOS has too. `coefficients`: per level (B, 4*K, H, W), quadrant by quadrant (top left,
    top right, bottom left, bottom right), K each. `basis`:
    (B, K, h, w), at half the size of the network input.
    """

    boxes: FCOSOutputs
    coefficients: list[Tensor]
    basis: Tensor


def coefficients_at(coefficients: Sequence[Tensor], image: int, points: Tensor) -> Tensor:
    """(n, 4*K) of the points (n,), counted over all levels, of one image; per level (B,4*K,H,W)."""
    starts, rows = 0, coefficients[0].new_empty((len(points), coefficients[0].shape[1]))
    for level in coefficients:
        cells = level[image].permute(1, 2, 0).flatten(0, 1)
        own = ((points >= starts) & (points < starts + len(cells))).nonzero().flatten()
        rows = rows.index_put((own,), cells[points[own] - starts])
        starts += len(cells)
    return rows
