"""FrozenBatchNorm2d and smooth_l1_loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from maskrcnn_benchmark.layers import FrozenBatchNorm2d, smooth_l1_loss


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


def test_smooth_l1() -> None:
    prediction, target = torch.tensor([0.0, 0.5, 3.0]), torch.zeros(3)
    each = smooth_l1_loss(prediction, target, 1.0, reduction="none")
    torch.testing.assert_close(each, torch.tensor([0.0, 0.125, 2.5]))
    assert smooth_l1_loss(prediction, target, 1.0).item() == pytest.approx(2.625)
    assert smooth_l1_loss(prediction, target, 0.0, reduction="mean").item() == pytest.approx(3.5 / 3)
    assert smooth_l1_loss(prediction[:0], target[:0], 1.0).item() == 0.0


def test_smooth_l1_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"shape of the prediction, \(3,\), got \(1,\)"):
        smooth_l1_loss(torch.zeros(3), torch.zeros(1), 1.0)
    with pytest.raises(ValueError, match="beta must be at least 0"):
        smooth_l1_loss(torch.zeros(3), torch.zeros(3), -1.0)
