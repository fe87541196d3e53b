"""Unnormalised losses: sums and counts, which become means over the batch of all ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from maskrcnn_benchmark.utils.comm import get_world_size, sum_over_ranks


@dataclass(frozen=True)
class LossTerm:
    """An unnormalised loss: `total` is a scalar of the graph, `count` the normaliser, e.g. a count of boxes.

    The count is an int or a scalar tensor, such as a sum of weights; a count of 0 goes with a total of 0 that
    is connected to the graph. It is clamped to at least `least`. With `per_process` the mean is that of each
    rank (parity with some published models), not of the batch of all ranks.
    """

    total: Tensor
    count: Tensor | int
    least: float = 1
    per_process: bool = False

    def mean(self) -> Tensor:
        """Mean over the entries of this rank alone (scalar)."""
        if isinstance(self.count, Tensor):
            return self.total / self.count.clamp(min=self.least)
        return self.total / max(self.least, self.count)


def mean_losses(terms: Mapping[str, LossTerm]) -> dict[str, Tensor]:
    """Divide every total by the mean count over the ranks; scalars by name.

    The mean of these values over the ranks (and of their gradients, as DistributedDataParallel computes it)
    is the loss of one rank with the whole batch, however the entries are distributed. All ranks must call
    this with the same names; the counts are reduced together, without waiting for the device.
    """
    world = get_world_size()
    if world == 1:
        return {name: term.mean() for name, term in terms.items()}
    device = next(iter(terms.values())).total.device
    known = [0 if isinstance(term.count, Tensor) else term.count for term in terms.values()]
    counts = torch.tensor(known, dtype=torch.float64).to(device)
    for i, term in enumerate(terms.values()):
        if isinstance(term.count, Tensor):
            counts[i] = term.count
    least = torch.tensor([term.least for term in terms.values()], dtype=torch.float64).to(device)
    shared = (torch.maximum(sum_over_ranks(counts), least) / world).float()
    return {
        name: term.mean() if term.per_process else term.total / count
        for (name, term), count in zip(terms.items(), shared, strict=True)
    }
