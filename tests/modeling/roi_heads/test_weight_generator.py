"""The weight generator: shapes, its untrained value, gradients, the read-out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.roi_heads.box_head.predictors import MetaWeightGenerator


def test_untrained_it_gives_the_mean_of_normalised_features() -> None:
    generator, support = MetaWeightGenerator(6), torch.randn(4, 6)
    row = generator(support, torch.randn(9, 6))
    assert row.shape == (6,)
    assert torch.allclose(row, F.normalize(support, dim=1).mean(dim=0))
    assert generator(support[:1], torch.randn(1, 6)).shape == (6,)


def test_the_read_out_attends_to_like_rows() -> None:
    """A feature along a known row reads that row back, the more so the sharper the attention."""
    known = 3.0 * torch.eye(4)
    for scale, least in ((10.0, 0.99), (1.0, 0.4)):
        generator = MetaWeightGenerator(4, attention_scale=scale)
        with torch.no_grad():
            generator.average_scale.zero_()
            generator.attended_scale.fill_(1.0)
        row = generator(torch.tensor([[0.0, 5.0, 0.0, 0.0]]), known)
        assert row.argmax() == 1 and row.sum().item() == pytest.approx(1.0) and row[1] > least


def test_every_parameter_gets_a_gradient() -> None:
    generator = MetaWeightGenerator(5)
    with torch.no_grad():
        generator.attended_scale.fill_(0.5)
    generator(torch.randn(3, 5), torch.randn(7, 5)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())


def test_gradients_are_right() -> None:
    generator = MetaWeightGenerator(3).double()
    with torch.no_grad():
        generator.attended_scale.copy_(torch.tensor([0.3, -0.2, 0.7]))
    inputs = [torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (2, 4)]
    assert torch.autograd.gradcheck(generator, inputs)
