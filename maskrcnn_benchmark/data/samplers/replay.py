"""Samplers of (image, class) pairs for a step of LST: balanced replay, and the published replay files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from os import PathLike, fspath
from typing import Any

import torch

from maskrcnn_benchmark.data.samplers.batches import PairBatches
from maskrcnn_benchmark.data.types import SampleKey
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json
from maskrcnn_benchmark.utils.rng import generator
from maskrcnn_benchmark.utils.text import shortened

Pair = tuple[int, int]


class ReplayPairSampler(PairBatches):
    """Balanced replay (LST, Hu et al. 2020, arXiv 2004.00900): endless epochs of (image, class) pairs.

    An epoch holds all pairs of new classes, and for old class k the next counts[k] of its images.
    The images of an old class are shuffled once and read cyclically: at epoch e class k starts at e *
    counts[k]. Every epoch is permuted. Position p of the stream belongs to epoch p // epoch_length;
    iteration t of rank g takes positions (t * world + g) * images_per_rank + slot, so that a resumed run
    needs no stored state.
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
        """Keep the plan.

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
        """(image index, label) at `position` of the stream of all ranks."""
        return self._epoch(position // self.epoch_length)[position % self.epoch_length]

    def key(self, iteration: int, slot: int) -> SampleKey:
        """The key at index `slot` of this rank's part of the batch of `iteration`."""
        position = self.position(iteration, slot)
        index, label = self.pair(position)
        return SampleKey(index, label, position)

    def _make_epoch(self, epoch: int) -> list[Pair]:
        """Pairs of `epoch` in shuffled order."""
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


class FilePairSampler(PairBatches):
    """Pairs from the two files of the published LST program: image indices in one, class labels in the other.

    Each file holds R lists, one per rank of the run that it was made for. The batch of an iteration has R
    equal parts of n images: part r of iteration t takes entries t * n + slot of list r and starts over, in
    both files together, at the end of the list. Any number of ranks can split the batch; with R ranks each
    reads one list, as the published program does.
    """

    def __init__(
        self,
        images_file: str | PathLike[str],
        classes_file: str | PathLike[str],
        *,
        num_images: int,
        num_classes: int,
        images_per_rank: int,
        num_iters: int,
        world: int = 1,
        rank: int = 0,
        start_iter: int = 0,
    ) -> None:
        """Read and check both files.

        `num_images`: size of the data set; `num_classes`: labels with background. Raises DataError naming
        the file when the lists have different lengths, cannot split the batch equally, or name images or
        classes outside of the data set.
        """
        super().__init__(
            world=world,
            rank=rank,
            images_per_rank=images_per_rank,
            start_iter=start_iter,
            num_iters=num_iters,
        )
        images = _read_lists(images_file, num_images, "an image index")
        classes = _read_lists(classes_file, num_classes, "a class label")
        if [len(row) for row in images] != [len(row) for row in classes]:
            raise DataError(
                f"{fspath(images_file)} and {fspath(classes_file)} hold lists of different lengths"
            )
        self.images_per_list, rest = divmod(world * images_per_rank, len(images))
        if rest:
            raise DataError(
                f"{fspath(images_file)} holds {len(images)} lists (one per rank of the run it was made "
                f"for), which cannot split a batch of {world * images_per_rank} images; make "
                f"SOLVER.IMS_PER_BATCH a multiple of {len(images)}, or write files with another number of "
                "lists (tools/replay_indices.py)"
            )
        self.images = images
        self.classes = classes

    def key(self, iteration: int, slot: int) -> SampleKey:
        """The key at index `slot` of this rank's part of the batch of `iteration`."""
        row, offset = divmod(self.rank * self.images_per_rank + slot, self.images_per_list)
        entry = (iteration * self.images_per_list + offset) % len(self.images[row])
        return SampleKey(self.images[row][entry], self.classes[row][entry], self.position(iteration, slot))


def _read_lists(path: str | PathLike[str], limit: int, what: str) -> list[list[int]]:
    """Read the lists of one file and check that all values lie in 0..limit-1."""
    rows: Any = read_json(path, "replay file")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        raise DataError(f"replay file {fspath(path)} must hold a list of non-empty lists, one per rank")
    for row in rows:
        for index, value in enumerate(row):
            if not isinstance(value, int) or not 0 <= value < limit:
                raise DataError(
                    f"replay file {fspath(path)}: entry {index} is {shortened(value)}, expected {what} "
                    f"in 0..{limit - 1}"
                )
    return rows
