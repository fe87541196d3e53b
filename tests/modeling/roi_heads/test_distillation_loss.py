"""Distillation loss."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import distillation_loss


def test_value_leaves_out_background_and_new_classes() -> None:
    student = torch.tensor([[9.0, 0.5, 0.25, 7.0], [9.0, 0.0, 1.0, 7.0]], requires_grad=True)
    teacher = torch.tensor([[5.0, 0.0, 0.25], [5.0, 0.0, 0.0]])
    loss = distillation_loss(student, teacher, 2).mean()
    assert loss.item() == pytest.approx((0.25 + 1.0) / 2)
    loss.backward()
    assert student.grad is not None
    assert student.grad[:, [0, 3]].abs().sum() == 0 and student.grad[0, 1] == 0.5


def test_no_boxes_is_a_connected_zero() -> None:
    student = torch.zeros(0, 4, requires_grad=True)
    loss = distillation_loss(student, torch.zeros(0, 3), 2).mean()
    assert loss.item() == 0 and loss.requires_grad


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"expected \(2, 3\)"):
        distillation_loss(torch.zeros(2, 4), torch.zeros(2, 4), 2)
    with pytest.raises(ValueError, match="fewer than"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 5), 4)
