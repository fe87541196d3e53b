"""The two released replay files of a step: image indices and class labels, a list per rank."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from maskrcnn_benchmark.data.samplers import ReplayPairSampler
from maskrcnn_benchmark.incremental.replay.plan import ReplayPlan
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json, write_json
from maskrcnn_benchmark.utils.rng import derive_seed


def published_order(
    plan: ReplayPlan, world: int, samples_per_rank: int, shuffle_seed: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs in the released order: image indices and class labels, int64 (world, samples_per_rank) each.

    Rank g reads row g in order. Whole epochs are permuted with a generator seeded by the epoch index; the
    rest is filled with the beginning of the last epoch before its permutation. An old class walks
    cyclically through its image list, over the epochs.

    Args:
        shuffle_seed: seed of the standard-library shuffle of each class's image list, in label order, as
            for the released files; None keeps ascending order.
    """
    old_lists = [list(images) for images in plan.image_lists]
    if shuffle_seed is not None:
        # parity: only the lists of old classes matter; the new pairs were collected in ascending order before
        source = random.Random(shuffle_seed)
        for images in old_lists:
            source.shuffle(images)
    total, length = world * samples_per_rank, plan.epoch_length
    epochs, parts = _Epochs(plan.counts, old_lists, plan.new_pairs), []
    for epoch in range(total // length):
        order = torch.randperm(length, generator=torch.Generator().manual_seed(epoch)).numpy()
        parts.append(epochs.pairs(epoch)[order])
    rest = total % length
    # parity: the tail repeats the last epoch's list; with less than one epoch it is the first one's
    parts.append(epochs.pairs(max(0, total // length - 1))[:rest])
    pairs = np.concatenate(parts).reshape(world, samples_per_rank, 2)
    return pairs[..., 0], pairs[..., 1]


def scheduler_order(
    plan: ReplayPlan, world: int, samples_per_rank: int, images_per_rank: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that the scheduler samples online, in its order, as arrays like those of `published_order`.

    Args:
        images_per_rank: images of a batch that come from each row.
        seed: LST.SEED of the run.

    Raises:
        DataError: when `samples_per_rank` is no multiple of `images_per_rank`.
    """
    if samples_per_rank % images_per_rank:
        raise DataError(
            f"{samples_per_rank} samples per rank are no multiple of {images_per_rank} images per batch; "
            f"give a multiple of {images_per_rank}"
        )
    stream = replay_sampler(plan, seed, images_per_rank=1, num_iters=0)
    pairs = np.array([stream.pair(p) for p in range(world * samples_per_rank)], dtype=np.int64)
    # order of the stream: batch by batch, in each batch rank by rank
    batches = pairs.reshape(-1, world, images_per_rank, 2).swapaxes(0, 1)
    images, classes = batches.reshape(world, samples_per_rank, 2).transpose(2, 0, 1)
    return images, classes


def replay_sampler(
    plan: ReplayPlan,
    seed: int,
    *,
    images_per_rank: int,
    num_iters: int,
    world: int = 1,
    rank: int = 0,
    start_iter: int = 0,
) -> ReplayPairSampler:
    """Sampler of the pairs of a step as the scheduler uses it online; `seed` is LST.SEED."""
    return ReplayPairSampler(
        plan.counts,
        plan.image_lists,
        plan.new_pairs,
        seed=derive_seed(seed, "replay", plan.phase),
        images_per_rank=images_per_rank,
        num_iters=num_iters,
        world=world,
        rank=rank,
        start_iter=start_iter,
    )


class _Epochs:
    """Pairs of each epoch before its permutation: new pairs, then old classes in label order."""

    def __init__(self, counts: list[int], lists: list[list[int]], new_pairs: list[tuple[int, int]]) -> None:
        self._new = np.array(new_pairs, dtype=np.int64).reshape(-1, 2)
        self._images = np.array([image for images in lists for image in images], dtype=np.int64)
        samples = np.array(counts, dtype=np.int64)
        sizes = np.array([len(images) for images in lists], np.int64)
        # one entry per replayed pair: its class, its index among the samples of the class, and of the class
        # the number of samples, the number of images, and the offset of its images
        self._class = np.repeat(np.arange(len(samples)), samples)
        self._index = np.arange(len(self._class)) - (np.cumsum(samples) - samples)[self._class]
        self._samples, self._sizes = samples[self._class], sizes[self._class]
        self._offset = (np.cumsum(sizes) - sizes)[self._class]

    def pairs(self, epoch: int) -> np.ndarray:
        """Pairs (length, 2) int64 of an epoch: image, label."""
        window = (epoch * self._samples + self._index) % self._sizes
        replayed = np.stack([self._images[self._offset + window], self._class + 1], axis=1)
        return np.concatenate([self._new, replayed])


def index_file_names(phase: int) -> tuple[str, str]:
    """Released file names of the image indices and the class labels of a step."""
    return (
        f"lvis_indices_qry_step{phase}_rand_balanced.json",
        f"lvis_classes_qry_step{phase}_rand_balanced.json",
    )


def write_index_files(
    folder: str | Path, phase: int, images: np.ndarray, classes: np.ndarray
) -> tuple[Path, Path]:
    """Write image indices and class labels (world, samples) under the released names; returns the paths."""
    paths = tuple(Path(folder) / name for name in index_file_names(phase))
    for path, array in zip(paths, (images, classes), strict=True):
        write_json(path, array.tolist())
    return paths[0], paths[1]


def export_index_files(
    plan: ReplayPlan, folder: str | Path, *, world: int, samples_per_rank: int, shuffle_seed: int | None
) -> tuple[Path, Path]:
    """Write the two files, `world` lists of `samples_per_rank` values each; returns the paths."""
    return write_index_files(
        folder, plan.phase, *published_order(plan, world, samples_per_rank, shuffle_seed)
    )


def read_index_files(
    indices_path: str | Path, classes_path: str | Path, *, num_images: int, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read both files as int64 arrays (world, samples), checked against the data set of the step.

    Raises:
        DataError: naming the file when the two differ in shape, an index is not below `num_images`, or a
            label is not in 1..`num_classes`.
    """
    arrays = []
    for path, low, high in ((indices_path, 0, num_images - 1), (classes_path, 1, num_classes)):
        rows = read_json(path, what="replay file")
        if (
            not isinstance(rows, list)
            or not rows
            or not all(isinstance(row, list) for row in rows)
            or len({len(row) for row in rows}) != 1
        ):
            raise DataError(f"{path}: expected a list of equally long lists, one per rank")
        if not all(type(value) is int and abs(value) < 1 << 62 for row in rows for value in row):
            raise DataError(f"{path}: expected lists of integers; get the file again")
        array = np.array(rows, dtype=np.int64)
        if array.size and not low <= array.min() <= array.max() <= high:
            raise DataError(
                f"{path}: values {array.min()}..{array.max()}, expected {low}..{high}; the file belongs to "
                "another step or data set"
            )
        arrays.append(array)
    if arrays[0].shape != arrays[1].shape:
        raise DataError(
            f"{indices_path} holds {arrays[0].shape} entries but {classes_path} {arrays[1].shape}"
        )
    return arrays[0], arrays[1]
