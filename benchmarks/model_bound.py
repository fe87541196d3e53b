"""Lower bound of the time of a pass: its operations over the device's rate of matrix products."""

from __future__ import annotations

import torch
from timing import Call, median_ms
from torch.utils.flop_counter import FlopCounterMode

SIDE = 2048
"""Side of the matrices whose product is timed."""


def operations_of(call: Call) -> float:
    """Floating-point operations of the convolutions and matrix products of one call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product with the current number of threads."""
    side = SIDE if device.type == "cpu" else 4 * SIDE
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    (product_ms,) = median_ms([lambda: a @ b], device, 1.0)
    return 2 * side**3 / product_ms * 1000


def bound_ms(operations: float, rate: float) -> float:
    """Min milliseconds for `operations`."""
    return 1000 * operations / rate
