"""What SipMask computes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from maskrcnn_benchmark.modeling.heads.fcos.targets import FCOSOutputs

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
