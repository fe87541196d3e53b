"""Random choice of the anchors or proposals that enter a loss, and the class rule of LST (LST spec 4).

Randomness comes from torch's default generator of the tensor's device; the engine seeds it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _subset(indices: Tensor, count: int) -> Tensor:
    """`count` random entries of `indices` (n,), in their order; all of them when there are no more."""
    if len(indices) <= count:
        return indices
    chosen = torch.randperm(len(indices), device=indices.device)[:count]
    return indices[chosen.sort().values]


def sample_labels(labels: Tensor, batch_size: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Indices (int64, ascending) of sampled positives (label >= 1) and negatives (label 0) of `labels` (N,).

    At most int(batch_size * positive_fraction) positives; negatives
    fill up to `batch_size`. Other labels are never taken.
    """
    positives = _subset((labels >= 1).nonzero().flatten(), int(batch_size * positive_fraction))
    negatives = _subset((labels == 0).nonzero().flatten(), batch_size - len(positives))
    return positives, negatives


def keep_query_class(labels: Tensor, query_class: int, fallback: int = 10) -> Tensor:
    """Labels (N,) with the foreground of other classes set to -1 (neither positive nor negative).

    query_class 0 changes nothing. parity: when no label equals `query_class`, the first `fallback` foreground
    entries of any class stay positive.
    """
    if query_class == 0:
        return labels
    foreground = labels >= 1
    keep = labels == query_class
    if not bool(keep.any()):
        keep = foreground & (foreground.cumsum(0) <= fallback)
    return torch.where(foreground & ~keep, -1, labels)
