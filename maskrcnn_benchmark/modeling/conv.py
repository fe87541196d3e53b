"""Initialisation of convolution and fully connected layers, and both with an optional norm and ReLU.

The initial values do not matter for published checkpoints, but for training from an ImageNet backbone or from
scratch. The `*_init` functions work in place, return the layer, and run on the meta device.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from maskrcnn_benchmark.modeling.norm import NormFactory

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, nn.ConvTranspose2d)


def _zero_bias(layer: nn.Module) -> None:
    bias = getattr(layer, "bias", None)
    if bias is not None:
        nn.init.zeros_(bias)


def kaiming_uniform_init(layer: Layer) -> Layer:
    """Kaiming-uniform weights with a = 1 (backbones, FPN, fully connected layers of the box head), bias 0."""
    nn.init.kaiming_uniform_(layer.weight, a=1)
    _zero_bias(layer)
    return layer


def kaiming_normal_init(layer: Layer) -> Layer:
    """Kaiming-normal weights over fan out for ReLU (mask and keypoint heads), bias 0."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    _zero_bias(layer)
    return layer


def normal_init(layer: Layer, std: float) -> Layer:
    """Zero-mean normal weights (`std` 0.01 for RPN and classifiers, 0.001 for box regression), bias 0."""
    nn.init.normal_(layer.weight, std=std)
    _zero_bias(layer)
    return layer


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
    """Stride-1 convolution that keeps the spatial size: (N, in, H, W) -> (N, out, H, W).

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
    (kaiming_normal_init if relu_init else kaiming_uniform_init)(layer)
    return _sequence(layer, out_channels, norm, relu)


def fc_norm(in_features: int, out_features: int, *, norm: NormFactory | None = None) -> nn.Module:
    """Fully connected layer, Kaiming-uniform a = 1: (N, in) -> (N, out); the norm works over the features."""
    layer = kaiming_uniform_init(nn.Linear(in_features, out_features, bias=norm is None))
    return _sequence(layer, out_features, norm, relu=False)


def _sequence(layer: nn.Module, out_channels: int, norm: NormFactory | None, relu: bool) -> nn.Module:
    """Return the layer itself, or a Sequential whose children `0` and `1` are layer and norm.

    parity: published parameter names are `weight`, `bias` without a norm, `0.weight`, `1.weight` with it.
    """
    parts = [layer]
    if norm is not None:
        parts.append(norm(out_channels))
    if relu:
        parts.append(nn.ReLU(inplace=True))
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)
