"""Sigmoid focal loss with integer targets (Lin et al., Focal Loss, 2017; core spec 12 and 16)."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.layers._ops import load_ops


def sigmoid_focal_loss(
    logits: Tensor, targets: Tensor, *, gamma: float, alpha: float, reduction: str = "sum"
) -> Tensor:
    """Focal loss of every (row, class) pair, (N, C), or its sum.

    logits: (N,C); targets: (N,) integers, c = 1..C makes column c - 1 positive, 0 is background, -1 leaves
    the row out. With p = sigmoid(logit): -alpha (1-p)^gamma log p for the positive column,
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
