"""Losses as sums and counts, which become means over the whole batch of all processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from maskrcnn_benchmark.utils.comm import get_world_size, sum_over_ranks


@dataclass(frozen=True)
class LossTerm:
    """A loss before its division: `total` is a scalar of the graph, `count` how many entries it sums over.

    The count is a number or a scalar tensor, e.g. a sum of weights; a count of 0 goes with a total of 0 that
    is connected to the graph. Counts below `least` count as `least`. With `per_process` the mean is that of
    each process (parity of some published models), not of the whole batch.
    """

    total: Tensor
    count: Tensor | int
    least: float = 1
    per_process: bool = False

    def mean(self) -> Tensor:
        """The mean over the entries of this process alone (scalar)."""
        if isinstance(self.count, Tensor):
            return self.total / self.count.clamp(min=self.least)
        return self.total / max(self.least, self.count)


def mean_losses(terms: Mapping[str, LossTerm]) -> dict[str, Tensor]:
    """Scalars by name: every total divided by the mean count of the processes.

    The mean of these values (and of their gradients, as DistributedDataParallel takes it) over the processes
    is the loss of one process with the whole batch, however the entries are spread. All processes must call
    this with the same names; the counts travel together in one reduction, without a wait for the device.
    """
    world = get_world_size()
    if world == 1:
        return {name: term.mean() for name, term in terms.items()}
    device = next(iter(terms.values())).total.device
    numbers = [0 if isinstance(term.count, Tensor) else term.count for term in terms.values()]
    counts = torch.tensor(numbers, dtype=torch.float64).to(device)
    for place, term in enumerate(terms.values()):
        if isinstance(term.count, Tensor):
            counts[place] = term.count
    least = torch.tensor([term.least for term in terms.values()], dtype=torch.float64).to(device)
    shared = (torch.maximum(sum_over_ranks(counts), least) / world).float()
    return {
        name: term.mean() if term.per_process else term.total / count
        for (name, term), count in zip(terms.items(), shared, strict=True)
    }
