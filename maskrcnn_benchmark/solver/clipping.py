"""Gradient clipping by norm or value, and the gradient norm that the training loop logs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from maskrcnn_benchmark.utils.errors import ConfigError

CLIP_TYPES = ("norm", "value")


class GradientClipper:
    """Measures the L2 norm of all gradients and clips them.

    Args:
        kind: "none" only measures; "norm" scales all gradients so that their joint L2 norm is at most
            `limit`; "value" clamps every element to [-limit, limit].

    Raises:
        ConfigError: another kind, or a limit <= 0.
    """

    def __init__(self, kind: str = "none", limit: float = 0.0) -> None:
        if kind not in ("none", *CLIP_TYPES):
            raise ConfigError(
                f"SOLVER.CLIP_GRADIENTS.TYPE is {kind!r}, expected one of {', '.join(CLIP_TYPES)}"
            )
        if kind != "none" and not limit > 0:
            raise ConfigError(f"SOLVER.CLIP_GRADIENTS.VALUE must be positive, found {limit}")
        self.kind = kind
        self.limit = limit

    @classmethod
    def from_cfg(cls, cfg: CfgNode) -> GradientClipper:
        """Build the clipper of `cfg.SOLVER.CLIP_GRADIENTS`."""
        node = cfg.SOLVER.CLIP_GRADIENTS
        return cls(node.TYPE, node.VALUE) if node.ENABLED else cls()

    def __call__(self, parameters: Iterable[nn.Parameter]) -> Tensor:
        """Clip in-place; return the norm before, a float32 scalar (non-finite if a gradient is)."""
        with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
        gradients = [parameter.grad for parameter in with_gradient if parameter.grad is not None]
        total = torch.nn.utils.get_total_norm(gradients)
        if self.kind == "norm":
            torch.nn.utils.clip_grads_with_norm_(with_gradient, self.limit, total)
        elif self.kind == "value":
            torch.nn.utils.clip_grad_value_(with_gradient, self.limit)
        return total
