"""A data set's indices split over processes, as the published code does (core spec section 15)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch


class DistributedSampler:
    """One process's contiguous block of the (shuffled) indices, padded by repeating the head."""

    def __init__(self, num_items: int, num_replicas: int, rank: int, shuffle: bool = True) -> None:
        """Split 0..num_items-1 over `num_replicas` processes; ValueError for another rank."""
        if not 0 <= rank < num_replicas:
            raise ValueError(f"rank {rank} of {num_replicas} processes")
        self.num_items = num_items
        self.num_replicas = num_replicas
        self.rank = rank
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation: it is seeded by `epoch` alone (parity)."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Indices per process."""
        return math.ceil(self.num_items / self.num_replicas)

    def __iter__(self) -> Iterator[int]:
        """The block of this process."""
        if self.shuffle:
            order = torch.randperm(
                self.num_items, generator=torch.Generator().manual_seed(self.epoch)
            ).tolist()
        else:
            order = list(range(self.num_items))
        start = self.rank * len(self)
        return iter([order[i % self.num_items] for i in range(start, start + len(self))])
