"""Replay pairs from the two published JSON files (LST spec section 3, point 7)."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any

from maskrcnn_benchmark.data.samplers.pairs import PairBatches
from maskrcnn_benchmark.data.types import SampleKey
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json


class FilePairSampler(PairBatches):
    """Pairs of files that hold one list per process: image indices in one, class labels in the other.

    With R lists, the batch of an iteration has R equal parts of n images: part r of iteration t takes
    entries t * n + slot of list r and starts over, in both files together, when they end. The processes of
    the run share the batch, however many they are; with R processes each reads a list of its own, as the
    published program does.
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
        the file when the lists do not belong together, cannot share the batch equally, or leave the data set.
        """
        super().__init__(
            world=world,
            rank=rank,
            images_per_rank=images_per_rank,
            start_iter=start_iter,
            num_iters=num_iters,
        )
        images = _rows(images_file, num_images, "image index")
        classes = _rows(classes_file, num_classes, "class label")
        if [len(row) for row in images] != [len(row) for row in classes]:
            raise DataError(
                f"{fspath(images_file)} and {fspath(classes_file)} hold lists of different lengths"
            )
        self.images_per_list, rest = divmod(world * images_per_rank, len(images))
        if rest:
            raise DataError(
                f"{fspath(images_file)} holds {len(images)} lists (one per process of the run it was made "
                f"for), which cannot share a batch of {world * images_per_rank} images; make "
                f"SOLVER.IMS_PER_BATCH a multiple of {len(images)}, or write files with another number of "
                "lists (tools/replay_indices.py)"
            )
        self.images = images
        self.classes = classes

    def key(self, iteration: int, slot: int) -> SampleKey:
        """The key of place `slot` in this process's part of the batch of `iteration`."""
        row, place = divmod(self.rank * self.images_per_rank + slot, self.images_per_list)
        entry = (iteration * self.images_per_list + place) % len(self.images[row])
        return SampleKey(self.images[row][entry], self.classes[row][entry], self.position(iteration, slot))


def _rows(path: str | PathLike[str], limit: int, what: str) -> list[list[int]]:
    """The lists of one file, all values checked to lie in 0..limit-1."""
    rows: Any = read_json(path, "replay file")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        raise DataError(f"replay file {fspath(path)} must hold a list of non-empty lists, one per process")
    for row in rows:
        for place, value in enumerate(row):
            if not isinstance(value, int) or not 0 <= value < limit:
                raise DataError(
                    f"replay file {fspath(path)}: entry {place} is {value!r}, expected a {what} "
                    f"in 0..{limit - 1}"
                )
    return rows
