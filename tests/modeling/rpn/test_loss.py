"""Losses of the region proposal network."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.losses import mean_losses
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.rpn.loss import Predict, RPNLoss
from maskrcnn_benchmark.structures import BoxList

ANCHORS = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 14], [40, 40, 49, 49], [0, 0, 9, 29]])


def predict_from(logits: Tensor, deltas: Tensor) -> Predict:
    """Predictions indexed in those of all anchors: (B, N), (B, N, 4)."""
    return lambda index: (logits.flatten()[index], deltas.reshape(-1, 4)[index])


def make_loss(batch: int = 256) -> RPNLoss:
    """Published thresholds."""
    matcher = Matcher(0.7, 0.3, allow_low_quality=True)
    return RPNLoss(matcher, BoxCoder((1.0, 1.0, 1.0, 1.0)), batch_size_per_image=batch, positive_fraction=0.5)


def test_labels() -> None:
    labels, matches = make_loss().label_anchors(
        ANCHORS, torch.tensor([True, True, False, True]), BoxList([[0.0, 0, 9, 9]], (60, 60))
    )
    assert labels.tolist() == [1, -1, -1, -1] and matches[0] == 0


def test_values_by_hand() -> None:
    logits = torch.tensor([[0.0, 5.0, 2.0, 7.0]], requires_grad=True)
    deltas = torch.zeros(1, 4, 4, requires_grad=True)
    target = BoxList([[1.0, 0, 10, 9]], (60, 60))  # IoU 9/11 with the first anchor
    losses = mean_losses(
        make_loss()(
            ANCHORS, [torch.tensor([True, False, True, False])], predict_from(logits, deltas), [target]
        )
    )
    expected = (math.log(2) + math.log(1 + math.exp(2))) / 2
    assert losses["loss_objectness"].item() == pytest.approx(expected, rel=1e-5)
    assert losses["loss_rpn_box_reg"].item() == pytest.approx(0.5 * 0.1**2 * 9 / 2, rel=1e-4)


@pytest.mark.parametrize("visible", [True, False])
def test_no_objects_or_no_visible_anchor(visible: bool) -> None:
    logits = torch.zeros(1, 4, requires_grad=True)
    deltas = torch.zeros(1, 4, 4, requires_grad=True)
    empty = BoxList(torch.zeros(0, 4), (60, 60))
    losses = mean_losses(
        make_loss()(ANCHORS, [torch.full((4,), visible)], predict_from(logits, deltas), [empty])
    )
    assert losses["loss_rpn_box_reg"].item() == 0
    assert losses["loss_objectness"].item() == pytest.approx(math.log(2) if visible else 0)
    sum(losses.values()).backward()
    assert torch.isfinite(logits.grad).all() and deltas.grad.abs().sum() == 0


def test_sample_size_limits_the_denominator() -> None:
    torch.manual_seed(0)
    logits, deltas = torch.zeros(1, 4, requires_grad=True), torch.zeros(1, 4, 4)
    empty = BoxList(torch.zeros(0, 4), (60, 60))
    make_loss(batch=2)(ANCHORS, [torch.ones(4, dtype=torch.bool)], predict_from(logits, deltas), [empty])[
        "loss_objectness"
    ].mean().backward()
    assert (logits.grad != 0).sum() == 2
