"""Frozen batch normalisation, and its folding into the convolution before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.deform_conv import DFConv2d


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and affine: four buffers (C,) for inputs (N, C, H, W).

    y = (x - running_mean) / sqrt(running_var + eps) * weight + bias.
    parity: eps is 0, as the published two-stage files were trained. Runs in the dtype of its input.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 0.0) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift (C,) that the layer applies to every channel."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in the dtype of `x`, in one pass that keeps no activation for the backward pass."""
        scale, shift = self.affine()
        shape = (1, -1, 1, 1)
        return torch.addcmul(shift.to(x.dtype).view(shape), x, scale.to(x.dtype).view(shape))

    def extra_repr(self) -> str:
        """Arguments for printing."""
        return f"{len(self.weight)}, eps={self.eps}"

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        # Ordinary batch norm layers also store a batch counter, which frozen statistics ignore.
        counter = f"{prefix}num_batches_tracked"
        rest = {key: value for key, value in state_dict.items() if key != counter}
        super()._load_from_state_dict(rest, prefix, *args)
        unexpected = args[3]
        if counter in unexpected:
            unexpected.remove(counter)


def conv_norm(conv: nn.Conv2d | DFConv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """Compute `norm(conv(x))` for x (N, C, H, W).

    A frozen norm is folded into weight and bias of the convolution, which saves a pass over the result; the
    gradient of `conv.weight` is the same. Hooks on `norm` are not called then.
    """
    if not isinstance(norm, FrozenBatchNorm2d):
        return norm(conv(x))
    scale, shift = norm.affine()
    if isinstance(conv, DFConv2d):
        return conv(x, scale=scale, shift=shift)
    if conv.bias is not None:
        return norm(conv(x))
    weight = conv.weight * scale.view(-1, 1, 1, 1)
    return F.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)
