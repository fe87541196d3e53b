"""Batches of images of like shape, as the published code makes them (core spec section 15)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


def aspect_groups(ratios: Iterable[float], bins: Sequence[float] = (1.0,)) -> list[int]:
    """Group of every height/width ratio: how many `bins` are at most the ratio (0 landscape, 1 portrait)."""
    edges = sorted(bins)
    return [bisect_right(edges, ratio) for ratio in ratios]


class GroupedBatchSampler:
    """Batches within which all indices have the same group, ordered by the place of their first index."""

    def __init__(
        self, sampler: Iterable[int], group_ids: Sequence[int], batch_size: int, drop_uneven: bool = False
    ) -> None:
        """Batch the indices of `sampler`; `group_ids[i]` is the group of index i."""
        self.sampler = sampler
        self.group_ids = group_ids
        self.batch_size = batch_size
        self.drop_uneven = drop_uneven

    def batches(self) -> list[list[int]]:
        """All batches of one pass over the sampler."""
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
        """One pass."""
        return iter(self.batches())

    def __len__(self) -> int:
        """Batches of one pass."""
        return len(self.batches())


class IterationBatchSampler:
    """Passes over a batch sampler until `num_iterations` batches, counted from `start_iter`.

    A resumed run begins a new pass (published behaviour); ShuffledStream resumes exactly.
    """

    def __init__(self, batch_sampler: Any, num_iterations: int, start_iter: int = 0) -> None:
        """Keep the batch sampler; a `set_epoch` of its `sampler` gets the iteration that begins a pass."""
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
        """Batches left."""
        return max(0, self.num_iterations - self.start_iter)
