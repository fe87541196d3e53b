"""Store of the teacher's cosines for one step: memory-mapped, indexed by (image, flip) and annotation id.

A store is a folder with `logits.npy` (flips, boxes, num_old + 1), `index.npz` (sorted image ids, offsets,
annotation ids) and `header.json`, which is written last: a folder with a header is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import atomic_path, new_array, read_json, write_json

_ARRAY, _INDEX, _HEADER = "logits.npy", "index.npz", "header.json"
STORE_FILES = (_ARRAY, _INDEX, _HEADER)
DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class DistillHeader:
    """Teacher, classes and views that the stored cosines belong to.

    Attributes:
        phase: the step whose new-class boxes are stored.
        num_old: number of old classes; cosines have num_old + 1 columns, the background first.
        classes_hash: `PhasePlan.classes_hash` of the teacher's classes.
        checkpoint: SHA-256 of the teacher's weight file.
        input_size: short side of the images and maximum of the long one, or their fixed width and height.
        flips: order of the stored views, 0 = as is, 1 = flipped left to right.
        dtype: of the stored cosines.
    """

    phase: int
    num_old: int
    classes_hash: str
    checkpoint: str
    input_size: tuple[int, int]
    flips: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class ImageCosines:
    """Teacher outputs of one image in one view.

    Attributes:
        image_id, flip: the image, and 0 = as is or 1 = flipped left to right.
        annotation_ids: (n,) int64 of the new-class boxes.
        cosines: (n, num_old + 1) before the scale of the classifier, background first.
    """

    image_id: int
    flip: int
    annotation_ids: np.ndarray
    cosines: np.ndarray


class DistillStore:
    """Random access to the teacher's cosines of a step through a memory map."""

    def __init__(self, folder: str | Path) -> None:
        """Open a folder written by `write_store`.

        Raises:
            DataError: when a file is missing, damaged or of another size than the header says.
        """
        self.folder = Path(folder)
        self.header = _read_header(self.folder / _HEADER)
        try:
            with np.load(self.folder / _INDEX, allow_pickle=False) as index:
                self.image_ids: np.ndarray = index["image_ids"]
                self._offsets: np.ndarray = index["offsets"]
                self._annotation_ids: np.ndarray = index["annotation_ids"]
            # an empty array cannot be mapped into memory
            self._logits = (
                np.load(self.folder / _ARRAY, mmap_mode="r", allow_pickle=False)
                if len(self._annotation_ids)
                else np.load(self.folder / _ARRAY, allow_pickle=False)
            )
        except Exception as error:  # a damaged file may raise anything
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise DataError(f"{self.folder}: damaged distillation store ({reason}); dump it again") from None
        if not _is_index(self.image_ids, self._offsets, self._annotation_ids):
            raise DataError(
                f"{self.folder / _INDEX}: damaged index (ids and offsets do not fit); dump it again"
            )
        if self._logits.dtype != self.header.dtype:
            raise DataError(
                f"{self.folder / _ARRAY}: dtype {self._logits.dtype}, expected {self.header.dtype}; dump it "
                "again"
            )
        expected = (len(self.header.flips), len(self._annotation_ids), self.header.num_old + 1)
        if self._logits.shape != expected:
            raise DataError(
                f"{self.folder / _ARRAY}: shape {self._logits.shape}, expected {expected}; dump it again"
            )
        self._position = {int(image): i for i, image in enumerate(self.image_ids)}
        self._flip_index = {flip: i for i, flip in enumerate(self.header.flips)}

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    def __contains__(self, image_id: int) -> bool:
        """Whether outputs of an image are stored."""
        return image_id in self._position

    def read(self, image_id: int, flip: int) -> ImageCosines:
        """Outputs of an image in one view; the cosines are a view into the file in its stored dtype.

        Raises:
            DataError: when the image or the flip is not stored.
        """
        if image_id not in self._position:
            raise DataError(f"{self.folder}: no distillation entry for image {image_id}; dump the step again")
        if flip not in self._flip_index:
            raise DataError(
                f"{self.folder}: flip {flip} was not dumped (LST.DISTILL.FLIPS {self.header.flips})"
            )
        i = self._position[image_id]
        part = slice(int(self._offsets[i]), int(self._offsets[i + 1]))
        return ImageCosines(
            image_id, flip, self._annotation_ids[part], self._logits[self._flip_index[flip], part]
        )


class CosineBlock(Protocol):
    """Teacher outputs of some images and views; its arrays are read one at a time.

    "images": (P, 3) int64, image id, flip and number of boxes of each entry; "annotation_ids": (n,) int64;
    "cosines": (n, num_old + 1) float32.
    """

    def read(self, name: str) -> np.ndarray:
        """Read one of the arrays."""
        ...


class MemoryBlock:
    """Teacher outputs in memory; `columns` holds the arrays of `CosineBlock`."""

    def __init__(self, images: Sequence[ImageCosines], num_old: int) -> None:
        """Concatenate the outputs of `images`; DataError when cosines have not num_old + 1 columns."""
        for image in images:
            if image.cosines.shape != (len(image.annotation_ids), num_old + 1):
                raise DataError(
                    f"distillation rows of image {image.image_id} must have {num_old + 1} columns "
                    f"for {len(image.annotation_ids)} boxes, found shape {image.cosines.shape}"
                )
        entries = [(i.image_id, i.flip, len(i.annotation_ids)) for i in images]
        self.columns = {
            "images": np.array(entries, np.int64).reshape(-1, 3),
            "annotation_ids": np.concatenate([np.zeros(0, np.int64), *(i.annotation_ids for i in images)]),
            "cosines": np.concatenate(
                [np.zeros((0, num_old + 1), np.float32), *(i.cosines for i in images)], dtype=np.float32
            ),
        }

    def read(self, name: str) -> np.ndarray:
        """Read one of the arrays."""
        return self.columns[name]


def write_store(folder: str | Path, header: DistillHeader, images: Sequence[ImageCosines]) -> DistillStore:
    """Write the outputs of all images and views (any order; of a repeated entry the last) and open the store.

    Raises:
        DataError: when the views of an image disagree about its annotations, or cosines have the wrong shape.
    """
    return write_blocks(folder, header, [MemoryBlock(images, header.num_old)])


def write_blocks(folder: str | Path, header: DistillHeader, blocks: Sequence[CosineBlock]) -> DistillStore:
    """Write the outputs of all blocks as `write_store` does, with one block and the annotation ids in memory.

    Raises:
        DataError: when the views of an image disagree about its annotations.
    """
    folder = Path(folder)
    entries = _index_entries(blocks)
    image_ids = np.array(sorted({image for image, _ in entries}), dtype=np.int64)
    ids = [_annotations_of(image, header.flips, entries) for image in image_ids.tolist()]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in ids])]).astype(np.int64)
    start = dict(zip(image_ids.tolist(), offsets.tolist(), strict=False))
    (folder / _HEADER).unlink(missing_ok=True)
    shape = (len(header.flips), int(offsets[-1]), header.num_old + 1)
    with new_array(folder / _ARRAY, shape, header.dtype) as put:
        for block_index, block in enumerate(blocks):
            cosines = block.read("cosines")
            for (image, flip), entry in entries.items():
                if entry.block == block_index and flip in header.flips:
                    box = header.flips.index(flip) * shape[1] + start[image]
                    put(box * shape[2], cosines[entry.first : entry.first + len(entry.annotation_ids)])
    with atomic_path(folder / _INDEX) as path:
        annotation_ids = np.concatenate([np.zeros(0, np.int64), *ids])
        np.savez(path, image_ids=image_ids, offsets=offsets, annotation_ids=annotation_ids)
    write_json(folder / _HEADER, asdict(header), indent=1)
    return DistillStore(folder)


@dataclass(frozen=True)
class _Entry:
    """Where the outputs of one image in one view are: index of the block, first box there, annotation ids."""

    block: int
    first: int
    annotation_ids: np.ndarray


_Entries = dict[tuple[int, int], _Entry]


def _index_entries(blocks: Sequence[CosineBlock]) -> _Entries:
    """(image id, flip) -> its entry; of a repeated one the last."""
    entries: _Entries = {}
    for index, block in enumerate(blocks):
        annotation_ids, first = block.read("annotation_ids"), 0
        for image, flip, boxes in block.read("images").tolist():
            entries[image, flip] = _Entry(index, first, annotation_ids[first : first + boxes])
            first += boxes
    return entries


def _annotations_of(image: int, flips: Sequence[int], entries: _Entries) -> np.ndarray:
    """Annotation ids (n,) of an image; DataError unless all `flips` have the same."""
    per_flip = [entries[image, flip].annotation_ids if (image, flip) in entries else None for flip in flips]
    first = per_flip[0]
    if first is None or any(ids is None or not np.array_equal(ids, first) for ids in per_flip):
        raise DataError(f"distillation rows of image {image} differ between the flips {list(flips)}")
    return first


def _is_index(image_ids: np.ndarray, offsets: np.ndarray, annotation_ids: np.ndarray) -> bool:
    """Whether the arrays are integers, and the offsets ascend from 0 to the number of annotations."""
    arrays = (image_ids, offsets, annotation_ids)
    if any(array.ndim != 1 or array.dtype.kind not in "iu" for array in arrays):
        return False
    fits = len(offsets) == len(image_ids) + 1 and offsets[0] == 0 and offsets[-1] == len(annotation_ids)
    return bool(fits and (np.diff(offsets) >= 0).all())


def _read_header(path: Path) -> DistillHeader:
    """Read a header; DataError naming a missing key, a wrong dtype or a value of another kind."""
    record: Any = read_json(path, what="distillation header")
    if not isinstance(record, dict):
        raise DataError(f"{path}: no distillation header; dump the step again")
    missing = [name for name in DistillHeader.__dataclass_fields__ if name not in record]
    if missing:
        raise DataError(f"{path}: key {missing[0]} is missing; dump the step again")
    if record["dtype"] not in DTYPES:
        raise DataError(f"{path}: dtype {record['dtype']}, expected one of {', '.join(DTYPES)}")
    known = {name: record[name] for name in DistillHeader.__dataclass_fields__}
    try:
        short, long = record["input_size"]
        flips = tuple(int(flip) for flip in record["flips"])
        numbers = {name: int(record[name]) for name in ("phase", "num_old")}
    except (TypeError, ValueError):
        raise DataError(f"{path}: values are no numbers; dump the step again") from None
    return DistillHeader(**known | numbers | {"flips": flips, "input_size": (short, long)})
