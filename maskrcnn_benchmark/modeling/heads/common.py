"""Focal loss of feature maps, which one-stage heads share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn_benchmark.layers.losses import sigmoid_focal_loss


def focal_loss_of_levels(logits: Sequence[Tensor], labels: Tensor, *, gamma: float, alpha: float) -> Tensor:
    """Sum over all levels (scalar): per level logits (B,N_l,C), labels (B,N) over the levels, 0 background.

    The maps, which hold millions of numbers, are not put together.
    """
    parts = labels.split([level.shape[1] for level in logits], dim=1)
    sums = [
        sigmoid_focal_loss(level.flatten(0, 1), part.flatten(), gamma=gamma, alpha=alpha)
        for level, part in zip(logits, parts, strict=True)
    ]
    return torch.stack(sums).sum()
