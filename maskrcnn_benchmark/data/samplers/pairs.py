"""What samplers of (image, class) pairs share: which positions an iteration of a process takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from maskrcnn_benchmark.data.types import SampleKey


class PairBatches(ABC):
    """Batches of keys for one process, `num_iters` iterations from `start_iter`."""

    def __init__(
        self, *, world: int, rank: int, images_per_rank: int, start_iter: int, num_iters: int
    ) -> None:
        """Keep the layout; ValueError for a rank that is not among the processes or an empty batch."""
        if not 0 <= rank < world or images_per_rank < 1:
            raise ValueError(f"rank {rank} of {world} processes with {images_per_rank} images each")
        self.world = world
        self.rank = rank
        self.images_per_rank = images_per_rank
        self.start_iter = start_iter
        self.num_iters = num_iters

    @abstractmethod
    def key(self, iteration: int, slot: int) -> SampleKey:
        """The key of place `slot` in the batch of `iteration`."""

    def position(self, iteration: int, slot: int) -> int:
        """Place in the common stream: (iteration * world + rank) * images_per_rank + slot (LST spec 12.4)."""
        return (iteration * self.world + self.rank) * self.images_per_rank + slot

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Key lists in order of iterations."""
        for iteration in range(self.start_iter, self.start_iter + self.num_iters):
            yield [self.key(iteration, slot) for slot in range(self.images_per_rank)]

    def __len__(self) -> int:
        """Iterations."""
        return self.num_iters
