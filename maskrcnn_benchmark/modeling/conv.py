"""Convolution and fully connected layers with an optional norm and ReLU, named as the published files need.

Without norm and ReLU the layer itself is returned (parameters `weight`, `bias`); otherwise a Sequential,
whose children are `0` (the layer, no bias when a norm follows), `1` (norm) and a ReLU without parameters.
"""

from __future__ import annotations

from torch import nn

from maskrcnn_benchmark.modeling.initialization import kaiming_normal, kaiming_uniform
from maskrcnn_benchmark.modeling.norm import NormFactory


def _sequence(layer: nn.Module, out_channels: int, norm: NormFactory | None, relu: bool) -> nn.Module:
    parts = [layer]
    if norm is not None:
        parts.append(norm(out_channels))
    if relu:
        parts.append(nn.ReLU(inplace=True))
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)


def conv_norm_relu(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    dilation: int = 1,
    norm: NormFactory | None = None,
    relu: bool = False,
    relu_init: bool = False,
) -> nn.Module:
    """Stride-1 convolution that keeps the spatial size: (N,in,H,W) -> (N,out,H,W).

    `relu_init` chooses Kaiming-normal fan-out values (mask head), else Kaiming-uniform a = 1 (FPN).
    """
    layer = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        padding=dilation * (kernel_size - 1) // 2,
        dilation=dilation,
        bias=norm is None,
    )
    (kaiming_normal if relu_init else kaiming_uniform)(layer)
    return _sequence(layer, out_channels, norm, relu)


def fc_norm(in_features: int, out_features: int, *, norm: NormFactory | None = None) -> nn.Module:
    """Fully connected layer, Kaiming-uniform a = 1: (N,in) -> (N,out); the norm works over the features."""
    layer = kaiming_uniform(nn.Linear(in_features, out_features, bias=norm is None))
    return _sequence(layer, out_features, norm, relu=False)
