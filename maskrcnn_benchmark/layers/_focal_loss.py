"""What torch must know about sigmoid_focal_loss besides its kernels: shapes without data, and derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def fake_losses(logits: Tensor, targets: Tensor, gamma: float, alpha: float) -> Tensor:
    """(N, C)."""
    return logits.new_empty(logits.shape)


def fake_sum(logits: Tensor, targets: Tensor, gamma: float, alpha: float) -> Tensor:
    """A scalar, of float32 at least."""
    wide = logits.dtype if logits.dtype == torch.float64 else torch.float32
    return logits.new_empty((), dtype=wide)


def fake_backward(grad: Tensor, logits: Tensor, targets: Tensor, gamma: float, alpha: float) -> Tensor:
    """(N, C)."""
    return logits.new_empty(logits.shape)


def save_forward(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    """Keep all arguments."""
    logits, targets, *ctx.numbers = inputs
    ctx.save_for_backward(logits, targets)


def grad_forward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradient of the logits; `grad` is (N, C), or the scalar of the sum."""
    if not ctx.needs_input_grad[0]:
        return (None,) * 4
    logits, targets = ctx.saved_tensors
    each = grad.to(logits.dtype).expand(logits.shape)
    backward = torch.ops.maskrcnn_benchmark.sigmoid_focal_loss_backward
    return backward(each, logits, targets, *ctx.numbers), None, None, None


def save_backward(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    """Keep all arguments."""
    grad, logits, targets, *ctx.numbers = inputs
    ctx.save_for_backward(grad, logits, targets)


def grad_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of the incoming gradient and of the logits."""
    incoming, logits, targets = ctx.saved_tensors
    to_incoming = to_logits = None
    if ctx.needs_input_grad[0]:
        backward = torch.ops.maskrcnn_benchmark.sigmoid_focal_loss_backward
        to_incoming = backward(grad, logits, targets, *ctx.numbers)
    if ctx.needs_input_grad[1]:
        to_logits = grad * incoming * second_derivative(logits, targets, *ctx.numbers)
    return to_incoming, to_logits, None, None, None


def second_derivative(logits: Tensor, targets: Tensor, gamma: float, alpha: float) -> Tensor:
    """Second derivative of the loss (N, C) by the logits.

    With p the probability of the wrong answer, q = 1 - p and w the weight of the kind of column, the loss
    -w p^gamma log q has the second derivative w p^gamma q (p (2 gamma + 1) + gamma (p - gamma q) log q).
    """
    columns = torch.arange(1, logits.shape[1] + 1, device=logits.device)
    positive = targets[:, None] == columns
    wrong = torch.where(positive, -logits, logits)
    p, q = wrong.sigmoid(), (-wrong).sigmoid()
    slope = p * (2 * gamma + 1) + gamma * (p - gamma * q) * F.logsigmoid(-wrong)
    weight = torch.where(positive, alpha, 1 - alpha).to(logits.dtype)
    return torch.where(targets[:, None] == -1, 0, weight * p**gamma * q * slope)
