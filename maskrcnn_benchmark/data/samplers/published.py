"""Samplers of maskrcnn-benchmark (data/samplers): blocks of ranks, and batches of images of like aspect."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch


class DistributedSampler:
    """The contiguous block of one rank of the (shuffled) indices, padded by repeating the first ones."""

    def __init__(self, num_items: int, num_replicas: int, rank: int, shuffle: bool = True) -> None:
        """Split 0..num_items-1 over `num_replicas` ranks; ValueError for a rank outside."""
        if not 0 <= rank < num_replicas:
            raise ValueError(f"rank {rank} of {num_replicas} ranks")
        self.num_items = num_items
        self.num_replicas = num_replicas
        self.rank = rank
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation, which `epoch` alone seeds (parity)."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of indices per rank."""
        return math.ceil(self.num_items / self.num_replicas)

    def __iter__(self) -> Iterator[int]:
        """The block of this rank."""
        if self.shuffle:
            order = torch.randperm(
                self.num_items, generator=torch.Generator().manual_seed(self.epoch)
            ).tolist()
        else:
            order = list(range(self.num_items))
        start = self.rank * len(self)
        return iter([order[i % self.num_items] for i in range(start, start + len(self))])


def aspect_groups(ratios: Iterable[float], bins: Sequence[float] = (1.0,)) -> list[int]:
    """Group of every height/width ratio: the number of `bins` at most the ratio (0 landscape, 1 portrait)."""
    edges = sorted(bins)
    return [bisect_right(edges, ratio) for ratio in ratios]


class GroupedBatchSampler:
    """Batches of indices of the same group, in the order of their first indices."""

    def __init__(
        self, sampler: Iterable[int], group_ids: Sequence[int], batch_size: int, drop_uneven: bool = False
    ) -> None:
        """Batch the indices of `sampler`; `group_ids[i]` is the group of index i."""
        self.sampler = sampler
        self.group_ids = group_ids
        self.batch_size = batch_size
        self.drop_uneven = drop_uneven

    def batches(self) -> list[list[int]]:
        """All batches of one epoch of the sampler."""
        open_batches: dict[int, list[int]] = {}
        out: list[list[int]] = []
        for index in self.sampler:
            group = self.group_ids[index]
            if len(open_batches.get(group, ())) in (0, self.batch_size):
                open_batches[group] = []
                out.append(open_batches[group])
            open_batches[group].append(index)
        return [batch for batch in out if len(batch) == self.batch_size or not self.drop_uneven]

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of one epoch."""
        return iter(self.batches())

    def __len__(self) -> int:
        """Number of batches of one epoch."""
        return len(self.batches())


class IterationBatchSampler:
    """Epochs of a batch sampler until `num_iterations` batches, counted from `start_iter`.

    A resumed run begins a new epoch (published behaviour); ShuffledStream resumes exactly.
    """

    def __init__(self, batch_sampler: Any, num_iterations: int, start_iter: int = 0) -> None:
        """Keep the batch sampler; `set_epoch` of its `sampler` gets the iteration that begins an epoch."""
        self.batch_sampler = batch_sampler
        self.num_iterations = num_iterations
        self.start_iter = start_iter

    def __iter__(self) -> Iterator[list[int]]:
        """The remaining batches; ValueError when the batch sampler gives none."""
        iteration = self.start_iter
        while iteration < self.num_iterations:
            sampler = getattr(self.batch_sampler, "sampler", None)
            if sampler is not None and hasattr(sampler, "set_epoch"):
                sampler.set_epoch(iteration)
            before = iteration
            for batch in self.batch_sampler:
                if iteration >= self.num_iterations:
                    return
                yield batch
                iteration += 1
            if iteration == before:
                raise ValueError("the batch sampler gives no batches")

    def __len__(self) -> int:
        """Number of remaining batches."""
        return max(0, self.num_iterations - self.start_iter)
