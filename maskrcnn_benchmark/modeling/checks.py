"""Check of network outputs, before non-finite values crash code far from their cause."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.utils.errors import UsageError


def require_finite(values: Tensor, what: str) -> None:
    """Raise UsageError when `values` (..., any shape) hold NaN or infinity; `what` names them."""
    if not bool(torch.isfinite(values).all()):
        raise UsageError(
            f"{what} are not finite: the weights have diverged or were not loaded, or an image holds NaN; "
            "try an earlier checkpoint, or a lower SOLVER.BASE_LR when training"
        )
