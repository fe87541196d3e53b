"""Random sampling of the anchors or proposals that enter a loss, also for the query class of LST.

Every image has its own generator, so that its sample depends neither on its position in a batch nor on the
rank that has it; without one, torch's default generator of the tensor's device is used.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn_benchmark.utils.rng import derive_seed


def image_generators(
    seeds: Sequence[int] | None, purpose: str, count: int, device: torch.device
) -> list[torch.Generator | None]:
    """Return a generator on `device` for each of `count` images, seeded by (its seed, `purpose`).

    Without seeds: None for every image. Raises ValueError when the seeds are not one per image.
    """
    if seeds is None:
        return [None] * count
    if len(seeds) != count:
        raise ValueError(f"{len(seeds)} seeds for {count} images")
    return [torch.Generator(device).manual_seed(derive_seed(seed, purpose)) for seed in seeds]


def _subset(indices: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Sample `count` of `indices` (N,) and keep their order; all of them when there are no more."""
    if len(indices) <= count:
        return indices
    sampled = torch.randperm(len(indices), device=indices.device, generator=generator)[:count]
    return indices[sampled.sort().values]


def subsample_labels(
    labels: Tensor, batch_size: int, positive_fraction: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Sample positives (label >= 1) and negatives (label 0) of `labels` (N,); ascending int64 indices.

    At most int(batch_size * positive_fraction) positives; negatives fill up to `batch_size`. Other labels are
    never sampled. `generator`: on the device of the labels.
    """
    positives = _subset((labels >= 1).nonzero().flatten(), int(batch_size * positive_fraction), generator)
    negatives = _subset((labels == 0).nonzero().flatten(), batch_size - len(positives), generator)
    return positives, negatives


def keep_query_class(labels: Tensor, query_class: int, fallback: int = 10) -> Tensor:
    """Set the foreground labels (N,) of classes other than `query_class` to -1 (ignored).

    Balanced replay of LST (Hu et al. 2020, arXiv 2004.00900). query_class 0 changes nothing.
    parity: when no label equals `query_class`, the first `fallback` foreground labels of any class stay.
    """
    if query_class == 0:
        return labels
    foreground = labels >= 1
    keep = labels == query_class
    if not bool(keep.any()):
        keep = foreground & (foreground.cumsum(0) <= fallback)
    return torch.where(foreground & ~keep, -1, labels)
