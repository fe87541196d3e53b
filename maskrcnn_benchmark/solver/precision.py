"""Numeric precision of training and inference: float32, bfloat16 or float16 with loss scaling."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.utils.errors import ConfigError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Precision:
    """Autocast context and gradient scaler for one device.

    `dtype`: float32 (no autocast), bfloat16 (autocast, no scaling) or float16 (autocast and dynamic loss
    scaling). Parameters, optimizer state and gradients stay float32 in all three. `scaler` always exists
    and passes values through when it is not needed, so that callers have one code path.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = dtype
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    @classmethod
    def from_cfg(cls, cfg: CfgNode, device: torch.device) -> Precision:
        """Build the precision that `cfg.DTYPE` names; ConfigError for an unknown name."""
        if cfg.DTYPE not in DTYPES:
            raise ConfigError(f"DTYPE is {cfg.DTYPE!r}, expected one of {', '.join(DTYPES)}")
        return cls(DTYPES[cfg.DTYPE], device)

    def autocast(self) -> AbstractContextManager:
        """Context for the forward pass."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)
