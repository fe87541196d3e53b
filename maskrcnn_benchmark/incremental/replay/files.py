"""The two published replay files of a step: image indices and class labels per rank (lst spec section 3)."""

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


def layout(
    plan: ReplayPlan, world: int, samples_per_rank: int, shuffle_seed: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Image indices and class labels, int64 (world, samples_per_rank) each: rank g reads row g in order.

    Whole epochs are permuted with a generator seeded by the epoch number; the rest is filled with the
    beginning of the last epoch before its permutation. An old class walks cyclically through its image list,
    over the epochs.

    Args:
        shuffle_seed: seed of the standard-library shuffle of every class' image list, in label order, as the
            reference files were made; None keeps ascending order.
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


def stream_layout(
    plan: ReplayPlan, world: int, samples_per_rank: int, images_per_rank: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Arrays as of `layout` with the pairs that the scheduler draws online, in its order.

    Args:
        images_per_rank: images of a batch that come from each row; the run reads the same number per row.
        seed: LST.SEED of the run.

    Raises:
        DataError: when a row is no whole number of batches.
    """
    if samples_per_rank % images_per_rank:
        raise DataError(
            f"{samples_per_rank} samples per rank are no whole number of batches of {images_per_rank}; make "
            f"them a multiple of {images_per_rank}"
        )
    stream = replay_sampler(plan, seed, images_per_rank=1, num_iters=0)
    pairs = np.array([stream.pair(p) for p in range(world * samples_per_rank)], dtype=np.int64)
    # the stream goes batch by batch, in each batch rank by rank
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
    """The pairs of a step as the scheduler draws them online; `seed` is LST.SEED."""
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
    """Pairs of any epoch before its permutation: new pairs, then old classes in label order."""

    def __init__(self, counts: list[int], lists: list[list[int]], new_pairs: list[tuple[int, int]]) -> None:
        self._new = np.array(new_pairs, dtype=np.int64).reshape(-1, 2)
        self._images = np.array([image for images in lists for image in images], dtype=np.int64)
        draws, sizes = np.array(counts, dtype=np.int64), np.array([len(images) for images in lists], np.int64)
        # one entry per replayed pair: its class, its place among the draws of the class, and of the class the
        # number of draws, of images, and where its images begin
        self._class = np.repeat(np.arange(len(draws)), draws)
        self._place = np.arange(len(self._class)) - (np.cumsum(draws) - draws)[self._class]
        self._draws, self._sizes = draws[self._class], sizes[self._class]
        self._first = (np.cumsum(sizes) - sizes)[self._class]

    def pairs(self, epoch: int) -> np.ndarray:
        """(length, 2) int64: image, label."""
        window = (epoch * self._draws + self._place) % self._sizes
        replayed = np.stack([self._images[self._first + window], self._class + 1], axis=1)
        return np.concatenate([self._new, replayed])


def published_names(phase: int) -> tuple[str, str]:
    """File names of the release for the indices and the classes of a step."""
    return (
        f"lvis_indices_qry_step{phase}_rand_balanced.json",
        f"lvis_classes_qry_step{phase}_rand_balanced.json",
    )


def write_published(
    folder: str | Path, phase: int, images: np.ndarray, classes: np.ndarray
) -> tuple[Path, Path]:
    """Write image indices and class labels (world, samples) under the published names; the paths."""
    paths = tuple(Path(folder) / name for name in published_names(phase))
    for path, array in zip(paths, (images, classes), strict=True):
        write_json(path, array.tolist())
    return paths[0], paths[1]


def export_published(
    plan: ReplayPlan, folder: str | Path, *, world: int, samples_per_rank: int, shuffle_seed: int | None
) -> tuple[Path, Path]:
    """Write the two JSON files, each `world` lists of `samples_per_rank` numbers; returns the paths."""
    return write_published(folder, plan.phase, *layout(plan, world, samples_per_rank, shuffle_seed))


def import_published(
    indices_path: str | Path, classes_path: str | Path, *, num_images: int, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both files as int64 arrays (world, samples), checked against the data set of the step.

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
            or len({len(r) if isinstance(r, list) else -1 for r in rows}) != 1
        ):
            raise DataError(f"{path}: expected a list of equally long lists, one per rank")
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
