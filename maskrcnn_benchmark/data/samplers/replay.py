"""Balanced replay: (image, class) pairs worked out on the fly from their position (LST spec 3 and 12.4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from maskrcnn_benchmark.data.samplers.pairs import PairBatches
from maskrcnn_benchmark.data.types import SampleKey
from maskrcnn_benchmark.utils.rng import generator

Pair = tuple[int, int]


class ReplayPairSampler(PairBatches):
    """An endless stream of epochs: all new-class pairs, and for old class k the next counts[k] of its
    images.

    The images of an old class are shuffled once and read cyclically: at epoch e class k starts at e *
    counts[k]. Every epoch is permuted. Position p of the stream belongs to epoch p // epoch_length;
    iteration t of rank g takes positions (t * world + g) * images_per_rank + slot, so that nothing has to be
    remembered for a resume.
    """

    def __init__(
        self,
        counts: Sequence[int],
        image_lists: Sequence[Sequence[int]],
        new_pairs: Sequence[Pair],
        *,
        seed: int,
        images_per_rank: int,
        num_iters: int,
        world: int = 1,
        rank: int = 0,
        start_iter: int = 0,
        published_order: bool = False,
    ) -> None:
        """Stream of the given plan.

        counts[k], image_lists[k]: pairs per epoch and image indices of old class k + 1; new_pairs:
        (image index, label) of all new classes. published_order: lists in the order given and permutations
        seeded by the epoch number alone, as the published files. Raises ValueError when the plan is empty or
        a class to replay has no images.
        """
        super().__init__(
            world=world,
            rank=rank,
            images_per_rank=images_per_rank,
            start_iter=start_iter,
            num_iters=num_iters,
        )
        for label, (count, images) in enumerate(zip(counts, image_lists, strict=True), start=1):
            if count > 0 and not images:
                raise ValueError(f"class {label} is to be replayed {count} times an epoch but has no images")
        self.epoch_length = len(new_pairs) + sum(counts)
        if self.epoch_length == 0:
            raise ValueError("the replay plan has no pairs")
        self.counts = list(counts)
        self.new_pairs = [(int(image), int(label)) for image, label in new_pairs]
        self.seed = seed
        self.published_order = published_order
        self.image_lists = [self._shuffled(k, list(images)) for k, images in enumerate(image_lists, start=1)]
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def unpermuted_epoch(self, epoch: int) -> list[Pair]:
        """Pairs of `epoch` before its permutation: new pairs, then replayed ones in class order."""
        pairs = list(self.new_pairs)
        for label, (count, images) in enumerate(zip(self.counts, self.image_lists, strict=True), start=1):
            start = epoch * count
            pairs += [(images[(start + i) % len(images)], label) for i in range(count)]
        return pairs

    def pair(self, position: int) -> Pair:
        """(image index, label) at `position` of the common stream."""
        return self._epoch(position // self.epoch_length)[position % self.epoch_length]

    def key(self, iteration: int, slot: int) -> SampleKey:
        """The key of place `slot` in the batch of `iteration`; its draw is the stream position."""
        position = self.position(iteration, slot)
        index, label = self.pair(position)
        return SampleKey(index, label, position)

    def _make_epoch(self, epoch: int) -> list[Pair]:
        """Pairs of `epoch` in the order they are drawn."""
        pairs = self.unpermuted_epoch(epoch)
        if self.published_order:
            source = torch.Generator().manual_seed(epoch)  # parity: the published permutation
        else:
            source = generator(self.seed, "replay-epoch", epoch)
        return [pairs[i] for i in torch.randperm(len(pairs), generator=source).tolist()]

    def _shuffled(self, label: int, images: list[int]) -> list[int]:
        """The images of an old class in the order of their replay."""
        if self.published_order:
            return images
        order = torch.randperm(len(images), generator=generator(self.seed, "replay-list", label)).tolist()
        return [images[i] for i in order]
