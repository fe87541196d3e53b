"""Batches of one rank from keys that are functions of the position in the training stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

from maskrcnn_benchmark.data.types import SampleKey


class PairBatches(ABC):
    """Batches of one rank, each a list of keys: `num_iters` of them from iteration `start_iter`."""

    def __init__(
        self, *, world: int, rank: int, images_per_rank: int, start_iter: int, num_iters: int
    ) -> None:
        """Keep the layout; ValueError for a rank outside of the `world` or an empty batch."""
        if not 0 <= rank < world or images_per_rank < 1:
            raise ValueError(f"rank {rank} of {world} ranks with {images_per_rank} images each")
        self.world = world
        self.rank = rank
        self.images_per_rank = images_per_rank
        self.start_iter = start_iter
        self.num_iters = num_iters

    @abstractmethod
    def key(self, iteration: int, slot: int) -> SampleKey:
        """The key at index `slot` of this rank's part of the batch of `iteration`."""

    def position(self, iteration: int, slot: int) -> int:
        """Position in the stream of all ranks: (iteration * world + rank) * images_per_rank + slot."""
        return (iteration * self.world + self.rank) * self.images_per_rank + slot

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Lists of keys in the order of iterations."""
        for iteration in range(self.start_iter, self.start_iter + self.num_iters):
            yield [self.key(iteration, slot) for slot in range(self.images_per_rank)]

    def __len__(self) -> int:
        """Number of iterations."""
        return self.num_iters


class PositionStream(Protocol):
    """An endless stream of keys in which every key is a function of its position alone."""

    def key(self, position: int) -> SampleKey:
        """The key at `position` (from 0), which also seeds its transforms."""
        ...


class PositionBatches(PairBatches):
    """Batches of one rank from a stream of keys, see `PairBatches.position`."""

    def __init__(
        self,
        stream: PositionStream,
        *,
        images_per_rank: int,
        num_iters: int,
        world: int = 1,
        rank: int = 0,
        start_iter: int = 0,
    ) -> None:
        """Keep stream and layout; ValueError for a rank outside of the `world`."""
        super().__init__(
            world=world,
            rank=rank,
            images_per_rank=images_per_rank,
            start_iter=start_iter,
            num_iters=num_iters,
        )
        self.stream = stream

    def key(self, iteration: int, slot: int) -> SampleKey:
        """The key at index `slot` of this rank's part of the batch of `iteration`."""
        return self.stream.key(self.position(iteration, slot))
