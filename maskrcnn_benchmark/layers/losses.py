"""Losses that several heads share."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def smooth_l1_loss(prediction: Tensor, target: Tensor, beta: float, reduction: str = "sum") -> Tensor:
    """d^2 / (2 beta) where |d| < beta, |d| - beta / 2 elsewhere (Girshick, Fast R-CNN, 2015).

    Tensors of one shape; reduction "sum", "mean" or "none". beta 0 is the L1 loss. Raises ValueError for a
    negative beta, other shapes, an unknown reduction.
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"smooth_l1_loss: target must have the shape of the prediction, {tuple(prediction.shape)}, "
            f"got {tuple(target.shape)}"
        )
    if not beta >= 0:
        raise ValueError(f"smooth_l1_loss: beta must be at least 0, got {beta}")
    return F.smooth_l1_loss(prediction, target, reduction=reduction, beta=beta)
