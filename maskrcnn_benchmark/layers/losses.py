"""Losses of the heads: sigmoid focal loss (a native operation) and smooth L1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.utils.native import load_ops, register_op


def sigmoid_focal_loss(
    logits: Tensor, targets: Tensor, *, gamma: float, alpha: float, reduction: str = "sum"
) -> Tensor:
    """Sigmoid focal loss (Lin et al. 2017, Focal Loss, section 3): per (row, class), (N, C), or its sum.

    logits: (N, C); targets: (N,) integers, c = 1..C makes column c - 1 positive, 0 is background, -1 ignores
    the row. With p = sigmoid(logit): -alpha (1-p)^gamma log p for the positive column,
    -(1-alpha) p^gamma log(1-p) for the others, in forms that stay finite; log p ends at that of the smallest
    normal float. reduction: "none" gives the dtype of `logits`; "sum" a scalar of float32 at least, without
    the memory of the (N, C) losses, the same bits for any number of threads. Differentiable, even twice.
    Raises ValueError (shapes, devices, gamma < 0, alpha outside 0..1, another reduction, on the CPU targets
    outside -1..C; on CUDA those count as background) and TypeError (dtypes).
    """
    load_ops()
    if reduction not in ("sum", "none"):
        raise ValueError(f"sigmoid_focal_loss: reduction must be 'sum' or 'none', got {reduction!r}")
    ops = torch.ops.maskrcnn_benchmark
    op = ops.sigmoid_focal_loss_sum if reduction == "sum" else ops.sigmoid_focal_loss
    return op(logits, targets, float(gamma), float(alpha))


def smooth_l1_loss(prediction: Tensor, target: Tensor, beta: float, reduction: str = "sum") -> Tensor:
    """Smooth L1 (Girshick 2015, section 2.3): d^2 / (2 beta) where |d| < beta, |d| - beta / 2 elsewhere.

    Tensors of one shape; reduction "sum" or "mean" gives a scalar, "none" that shape. beta 0 is the L1 loss.
    Raises ValueError for a negative beta, other shapes, an unknown reduction.
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"smooth_l1_loss: target must have the shape of the prediction, {tuple(prediction.shape)}, "
            f"got {tuple(target.shape)}"
        )
    if not beta >= 0:
        raise ValueError(f"smooth_l1_loss: beta must be at least 0, got {beta}")
    return F.smooth_l1_loss(prediction, target, reduction=reduction, beta=beta)


def _focal_loss_fake(logits: Tensor, targets: Tensor, gamma: float, alpha: float) -> Tensor:
    return logits.new_empty(logits.shape)


def _focal_loss_sum_fake(logits: Tensor, targets: Tensor, gamma: float, alpha: float) -> Tensor:
    wide = logits.dtype if logits.dtype == torch.float64 else torch.float32
    return logits.new_empty((), dtype=wide)


def _focal_loss_backward_fake(
    grad: Tensor, logits: Tensor, targets: Tensor, gamma: float, alpha: float
) -> Tensor:
    return logits.new_empty(logits.shape)


def _save_focal_loss(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    logits, targets, *ctx.gamma_alpha = inputs
    ctx.save_for_backward(logits, targets)


def _focal_loss_grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradient (N, C) of the logits; `grad` is (N, C), or the scalar of the sum."""
    if not ctx.needs_input_grad[0]:
        return (None,) * 4
    logits, targets = ctx.saved_tensors
    per_element = grad.to(logits.dtype).expand(logits.shape)
    backward = torch.ops.maskrcnn_benchmark.sigmoid_focal_loss_backward
    return backward(per_element, logits, targets, *ctx.gamma_alpha), None, None, None


def _save_focal_loss_backward(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    grad, logits, targets, *ctx.gamma_alpha = inputs
    ctx.save_for_backward(grad, logits, targets)


def _focal_loss_double_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients (N, C) of the incoming gradient and of the logits."""
    incoming, logits, targets = ctx.saved_tensors
    grad_incoming = grad_logits = None
    if ctx.needs_input_grad[0]:
        backward = torch.ops.maskrcnn_benchmark.sigmoid_focal_loss_backward
        grad_incoming = backward(grad, logits, targets, *ctx.gamma_alpha)
    if ctx.needs_input_grad[1]:
        grad_logits = grad * incoming * _focal_loss_second_derivative(logits, targets, *ctx.gamma_alpha)
    return grad_incoming, grad_logits, None, None, None


def _focal_loss_second_derivative(logits: Tensor, targets: Tensor, gamma: float, alpha: float) -> Tensor:
    """Second derivative (N, C) of the loss by the logits.

    With p the probability of the wrong outcome, q = 1 - p and w = alpha or 1 - alpha, the loss
    -w p^gamma log q has the second derivative w p^gamma q (p (2 gamma + 1) + gamma (p - gamma q) log q).
    """
    columns = torch.arange(1, logits.shape[1] + 1, device=logits.device)
    positive = targets[:, None] == columns
    wrong = torch.where(positive, -logits, logits)
    p, q = wrong.sigmoid(), (-wrong).sigmoid()
    slope = p * (2 * gamma + 1) + gamma * (p - gamma * q) * F.logsigmoid(-wrong)
    weight = torch.where(positive, alpha, 1 - alpha).to(logits.dtype)
    return torch.where(targets[:, None] == -1, 0, weight * p**gamma * q * slope)


register_op(
    "sigmoid_focal_loss",
    fake=_focal_loss_fake,
    backward=_focal_loss_grad,
    setup_context=_save_focal_loss,
)
register_op(
    "sigmoid_focal_loss_sum",
    fake=_focal_loss_sum_fake,
    backward=_focal_loss_grad,
    setup_context=_save_focal_loss,
)
register_op(
    "sigmoid_focal_loss_backward",
    fake=_focal_loss_backward_fake,
    backward=_focal_loss_double_backward,
    setup_context=_save_focal_loss_backward,
)
