"""Initial values of the two-stage layers (core spec 2, "Initialisation").

They do not matter for published checkpoints, but they do for training from an ImageNet body or from scratch.
All functions work in place, return the module, and run on the meta device.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, nn.ConvTranspose2d)


def _zero_bias(layer: nn.Module) -> None:
    bias = getattr(layer, "bias", None)
    if bias is not None:
        nn.init.zeros_(bias)


def kaiming_uniform(layer: Layer) -> Layer:
    """Uniform Kaiming with a = 1 (bodies, FPN, fully connected layers of the box head); bias 0."""
    nn.init.kaiming_uniform_(layer.weight, a=1)
    _zero_bias(layer)
    return layer


def kaiming_normal(layer: Layer) -> Layer:
    """Normal Kaiming over fan out for ReLU (mask convolutions and deconvolutions); bias 0."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    _zero_bias(layer)
    return layer


def gaussian(layer: Layer, std: float) -> Layer:
    """Zero-mean normal of the given deviation (RPN 0.01, classifiers 0.01, box regression 0.001); bias 0."""
    nn.init.normal_(layer.weight, std=std)
    _zero_bias(layer)
    return layer
