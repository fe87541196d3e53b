"""FrozenBatchNorm2d, and folding it into a convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.layers import FrozenBatchNorm2d, conv_norm


def filled(features: int, eps: float = 0.0) -> FrozenBatchNorm2d:
    layer = FrozenBatchNorm2d(features, eps)
    for buffer in layer.buffers():
        buffer.copy_(torch.rand_like(buffer) + 0.5)
    return layer


def test_equals_batch_norm_in_eval_mode() -> None:
    ours, theirs = filled(5, eps=0.1), nn.BatchNorm2d(5, eps=0.1).eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    x = torch.randn(2, 5, 4, 3)
    torch.testing.assert_close(ours(x), theirs(x))


def test_state_names_and_no_parameters() -> None:
    layer = FrozenBatchNorm2d(4)
    assert list(layer.state_dict()) == ["weight", "bias", "running_mean", "running_var"]
    assert list(layer.parameters()) == []
    layer.load_state_dict(nn.BatchNorm2d(4).state_dict())  # num_batches_tracked is dropped
    nested = nn.Sequential(FrozenBatchNorm2d(4))
    state = nn.Sequential(nn.BatchNorm2d(4)).state_dict()
    assert nested.load_state_dict(state).unexpected_keys == []
    with pytest.raises(RuntimeError, match="0.weigth"):
        nested.load_state_dict({**state, "0.weigth": torch.zeros(4)})


def test_gradient_and_no_saved_activation() -> None:
    layer, x = filled(3), torch.randn(2, 3, 2, 2, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t):
        out = layer(x)
    assert all(shape.numel() <= 3 for shape in saved)
    out.sum().backward()
    scale = layer.weight / layer.running_var.sqrt()
    torch.testing.assert_close(x.grad, scale.view(1, 3, 1, 1).expand_as(x))


def test_half_precision_stays_half() -> None:
    layer = filled(3)
    assert layer(torch.randn(1, 3, 2, 2).bfloat16()).dtype == torch.bfloat16
    assert layer(torch.zeros(0, 3, 2, 2)).shape == (0, 3, 2, 2)


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
