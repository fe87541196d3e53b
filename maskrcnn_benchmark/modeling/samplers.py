"""Random choice of the anchors or proposals that enter a loss, and the class rule of LST (LST spec 4).

Every image has a generator of its own, so that its sample depends neither on its place in a batch nor on
the process that has it; without one, torch's default generator of the tensor's device is used.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn_benchmark.utils.rng import derive_seed


def image_generators(
    seeds: Sequence[int] | None, use: str, count: int, device: torch.device
) -> list[torch.Generator | None]:
    """A generator on `device` for each of `count` images, from its seed and the name of the `use`.

    Without seeds: None for every image. Raises ValueError when the seeds are not one per image.
    """
    if seeds is None:
        return [None] * count
    if len(seeds) != count:
        raise ValueError(f"{len(seeds)} seeds for {count} images")
    return [torch.Generator(device).manual_seed(derive_seed(seed, use)) for seed in seeds]


def _subset(indices: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """`count` random entries of `indices` (n,), in their order; all of them when there are no more."""
    if len(indices) <= count:
        return indices
    chosen = torch.randperm(len(indices), device=indices.device, generator=generator)[:count]
    return indices[chosen.sort().values]


def sample_labels(
    labels: Tensor, batch_size: int, positive_fraction: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Indices (int64, ascending) of sampled positives (label >= 1) and negatives (label 0) of `labels` (N,).

    At most int(batch_size * positive_fraction) positives; negatives
    fill up to `batch_size`. Other labels are never taken. `generator`: on the device of the labels.
    """
    positives = _subset((labels >= 1).nonzero().flatten(), int(batch_size * positive_fraction), generator)
    negatives = _subset((labels == 0).nonzero().flatten(), batch_size - len(positives), generator)
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
