"""Folding fixed statistics into a convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.layers import FrozenBatchNorm2d, conv_norm


def layers(groups: int = 1) -> tuple[nn.Conv2d, FrozenBatchNorm2d]:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups, bias=False).double()
    norm = FrozenBatchNorm2d(6).double()
    for name, buffer in norm.named_buffers():
        buffer.copy_(torch.rand(6).double() + (0.5 if name == "running_var" else -0.5))
    return conv, norm


@pytest.mark.parametrize("groups", [1, 2])
def test_equals_convolution_then_norm(groups: int) -> None:
    conv, norm = layers(groups)
    x = torch.randn(2, 4, 9, 7, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    results = []
    for out in (conv_norm(conv, norm, x), norm(conv(x))):
        gradients = torch.autograd.grad((out * direction).sum(), (x, conv.weight))
        results.append((out, *gradients))
    for folded, plain in zip(*results, strict=True):
        torch.testing.assert_close(folded, plain, rtol=1e-12, atol=1e-12)


def test_other_norms_and_biased_convolutions_are_called_as_they_are() -> None:
    conv, norm = layers()
    x = torch.randn(1, 4, 6, 6, dtype=torch.float64)
    group_norm = nn.GroupNorm(2, 6).double()
    assert torch.equal(conv_norm(conv, group_norm, x), group_norm(conv(x)))
    conv.bias = nn.Parameter(torch.randn(6).double())
    assert torch.equal(conv_norm(conv, norm, x), norm(conv(x)))


def test_empty_batch_and_layout() -> None:
    conv, norm = layers()
    assert conv_norm(conv, norm, torch.zeros(0, 4, 6, 6).double()).shape == (0, 6, 3, 3)
    x = torch.randn(2, 4, 8, 8).double().contiguous(memory_format=torch.channels_last)
    assert conv_norm(conv, norm, x).is_contiguous(memory_format=torch.channels_last)
