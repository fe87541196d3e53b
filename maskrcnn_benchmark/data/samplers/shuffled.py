"""An endless shuffled stream of batches in which every batch is a function of its index alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch

from maskrcnn_benchmark.data.types import SampleKey
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.rng import generator


class ShuffledStream:
    """Batches of `batch_size` indices of one group, each item once per epoch of its group.

    Every group (aspect ratio) is one sequence of permutations, cut into batches, so that no remainder is
    dropped or repeated. Epoch e of the whole stream holds the batches that the groups complete in their epoch
    e, in shuffled order. There is no state between calls: batch b is the same after a resume.
    """

    def __init__(
        self, num_items: int, seed: int, batch_size: int, groups: Sequence[int] | None = None
    ) -> None:
        """Stream over 0..num_items-1; `groups[i]` is the group of item i (None: one group).

        Raises DataError when there are no items.
        """
        if num_items == 0:
            raise DataError("the training set has no usable image; check its annotation file and class list")
        self.seed = seed
        self.batch_size = batch_size
        members: dict[int, list[int]] = {}
        for item in range(num_items):
            members.setdefault(groups[item] if groups is not None else 0, []).append(item)
        self._groups = [members[group] for group in sorted(members)]
        self._permutation = lru_cache(maxsize=4 * len(self._groups))(self._make_permutation)
        self._epoch_batches = lru_cache(maxsize=2)(self._make_epoch)

    def batch(self, index: int) -> list[SampleKey]:
        """Batch `index` (from 0); the positions of its keys are index * batch_size + slot."""
        epoch = self._epoch_of(index)
        group, first = self._epoch_batches(epoch)[index - self._batches_before(epoch)]
        size = len(self._groups[group])
        keys = []
        for slot in range(self.batch_size):
            position = first * self.batch_size + slot
            item = self._permutation(group, position // size)[position % size]
            keys.append(SampleKey(item, 0, index * self.batch_size + slot))
        return keys

    def _batches_before(self, epoch: int) -> int:
        """Number of batches that all groups complete before `epoch`."""
        return sum(epoch * len(items) // self.batch_size for items in self._groups)

    def _epoch_of(self, index: int) -> int:
        """The epoch that holds batch `index` (bisection over the non-decreasing counts)."""
        low, high = 0, 1
        while self._batches_before(high) <= index:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            if self._batches_before(middle) <= index:
                low = middle
            else:
                high = middle
        return low

    def _make_epoch(self, epoch: int) -> list[tuple[int, int]]:
        """(group, index of the batch inside the group) of the batches of `epoch`, shuffled."""
        batches = [
            (group, batch)
            for group, items in enumerate(self._groups)
            for batch in range(
                epoch * len(items) // self.batch_size, (epoch + 1) * len(items) // self.batch_size
            )
        ]
        order = torch.randperm(len(batches), generator=generator(self.seed, "batches", epoch)).tolist()
        return [batches[i] for i in order]

    def _make_permutation(self, group: int, epoch: int) -> list[int]:
        """The items of `group` in the order of `epoch`."""
        items = self._groups[group]
        order = torch.randperm(len(items), generator=generator(self.seed, "items", group, epoch)).tolist()
        return [items[i] for i in order]


class StreamBatches:
    """The batches of one rank: in iteration t rank r of w takes part r of w equal parts of batch t.

    All ranks together see what one rank with the whole batch sees.
    """

    def __init__(
        self, stream: ShuffledStream, *, start_iter: int, num_iters: int, world: int = 1, rank: int = 0
    ) -> None:
        """Keep stream and layout; ValueError when the ranks cannot split a batch equally."""
        if not 0 <= rank < world or stream.batch_size % world:
            raise ValueError(f"rank {rank} of {world} ranks with {stream.batch_size} images together")
        self.stream = stream
        self.start_iter = start_iter
        self.num_iters = num_iters
        self.world = world
        self.rank = rank

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Lists of keys in the order of iterations."""
        size = self.stream.batch_size // self.world
        for iteration in range(self.start_iter, self.start_iter + self.num_iters):
            yield self.stream.batch(iteration)[self.rank * size : (self.rank + 1) * size]

    def __len__(self) -> int:
        """Number of iterations."""
        return self.num_iters
