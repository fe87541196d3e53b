"""Teacher outputs of one step: memory-mapped, found by (image, flip) and annotation id (lst spec 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """What the stored rows belong to.

    Attributes:
        phase: the step whose new boxes are stored. num_old: its old classes (rows have num_old + 1 columns).
        classes_hash: `PhasePlan.classes_hash` of the teacher's classes. checkpoint: SHA-256 of the teacher
        file.
        input_size: short side of the images and cap of the long one, or their fixed width and height.
        flips: order of the stored flips, 0 = as is, 1 = mirrored left to right. dtype: of the stored rows.
    """

    phase: int
    num_old: int
    classes_hash: str
    checkpoint: str
    input_size: tuple[int, int]
    flips: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class DistillRows:
    """Rows of one image and flip: cosines (n, num_old + 1) before the scale, background first."""

    image_id: int
    flip: int
    annotation_ids: np.ndarray
    cosines: np.ndarray


class DistillStore:
    """Random access to the teacher rows of a step without reading the file whole.

    A folder holds the array (flips, boxes, num_old + 1), the index (sorted image ids, offsets, annotation
    ids) and a JSON header; the header is written last, so a folder with a header is complete.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a folder written by `write_store`; DataError when a part is missing or sizes disagree."""
        self.folder = Path(folder)
        record = read_json(self.folder / _HEADER, what="distillation header")
        self.header = _read_header(record, self.folder / _HEADER)
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
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{self.folder}: damaged distillation store ({error}); dump it again") from None
        expected = (len(self.header.flips), len(self._annotation_ids), self.header.num_old + 1)
        if self._logits.shape != expected:
            raise DataError(
                f"{self.folder / _ARRAY}: shape {self._logits.shape}, expected {expected}; dump it again"
            )
        self._position = {int(image): i for i, image in enumerate(self.image_ids)}
        self._flip_row = {flip: i for i, flip in enumerate(self.header.flips)}

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    def __contains__(self, image_id: int) -> bool:
        """Whether an image has stored rows."""
        return image_id in self._position

    def rows(self, image_id: int, flip: int) -> DistillRows:
        """The rows of an image; the cosines are a view into the file in its stored dtype.

        Raises:
            DataError: when the image or the flip is not stored.
        """
        if image_id not in self._position:
            raise DataError(f"{self.folder}: no distillation entry for image {image_id}; dump the step again")
        if flip not in self._flip_row:
            raise DataError(
                f"{self.folder}: flip {flip} was not dumped (LST.DISTILL.FLIPS {self.header.flips})"
            )
        i = self._position[image_id]
        part = slice(int(self._offsets[i]), int(self._offsets[i + 1]))
        return DistillRows(
            image_id, flip, self._annotation_ids[part], self._logits[self._flip_row[flip], part]
        )


class Block(Protocol):
    """Rows of some images and flips, its arrays read one at a time.

    "pictures": int64 (P, 3), image id, flip and number of boxes of each; "annotation_ids": int64 (n,);
    "cosines": (n, num_old + 1).
    """

    def read(self, name: str) -> np.ndarray:
        """One of the arrays."""
        ...


class RowBlock:
    """A block in memory; `columns` are its arrays."""

    def __init__(self, rows: Sequence[DistillRows], num_old: int) -> None:
        """Raises DataError when a row has not num_old + 1 columns."""
        images = [(r.image_id, r.flip, len(r.annotation_ids)) for r in rows]
        for r in rows:
            if r.cosines.shape != (len(r.annotation_ids), num_old + 1):
                raise DataError(f"distillation rows of image {r.image_id} must have {num_old + 1} columns")
        self.columns = {
            "pictures": np.array(images, np.int64).reshape(-1, 3),
            "annotation_ids": np.concatenate([np.zeros(0, np.int64), *(r.annotation_ids for r in rows)]),
            "cosines": np.concatenate(
                [np.zeros((0, num_old + 1), np.float32), *(r.cosines for r in rows)], dtype=np.float32
            ),
        }

    def read(self, name: str) -> np.ndarray:
        """One of the arrays."""
        return self.columns[name]


def write_store(folder: str | Path, header: DistillHeader, rows: Sequence[DistillRows]) -> DistillStore:
    """Write the rows of all images and flips (any order, a repeated one is dropped) and open the result.

    Raises:
        DataError: when the flips of an image disagree about its annotations, or a row has the wrong length.
    """
    return write_blocks(folder, header, [RowBlock(rows, header.num_old)])


def write_blocks(folder: str | Path, header: DistillHeader, blocks: Sequence[Block]) -> DistillStore:
    """Write the rows of all blocks (as `write_store`), holding one block and the annotation ids at a time.

    Raises:
        DataError: when the flips of an image disagree about its annotations.
    """
    folder = Path(folder)
    places = _places(blocks)
    image_ids = np.array(sorted({image for image, _ in places}), dtype=np.int64)
    ids = [_agreed(image, header.flips, places) for image in image_ids.tolist()]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in ids])]).astype(np.int64)
    start = dict(zip(image_ids.tolist(), offsets.tolist(), strict=False))
    (folder / _HEADER).unlink(missing_ok=True)
    shape = (len(header.flips), int(offsets[-1]), header.num_old + 1)
    with new_array(folder / _ARRAY, shape, header.dtype) as put:
        for number, block in enumerate(blocks):
            cosines = block.read("cosines")
            for (image, flip), (owner, first, annotations) in places.items():
                if owner == number and flip in header.flips:
                    row = header.flips.index(flip) * shape[1] + start[image]
                    put(row * shape[2], cosines[first : first + len(annotations)])
    with atomic_path(folder / _INDEX) as path:
        annotation_ids = np.concatenate([np.zeros(0, np.int64), *ids])
        np.savez(path, image_ids=image_ids, offsets=offsets, annotation_ids=annotation_ids)
    write_json(folder / _HEADER, asdict(header), indent=1)
    return DistillStore(folder)


_Place = tuple[int, int, np.ndarray]


def _places(blocks: Sequence[Block]) -> dict[tuple[int, int], _Place]:
    """(image id, flip) -> its block, first row there, annotation ids; of a repeated one the last."""
    places: dict[tuple[int, int], _Place] = {}
    for number, block in enumerate(blocks):
        annotation_ids, first = block.read("annotation_ids"), 0
        for image, flip, boxes in block.read("pictures").tolist():
            places[image, flip] = (number, first, annotation_ids[first : first + boxes])
            first += boxes
    return places


def _agreed(image: int, flips: Sequence[int], places: Mapping[tuple[int, int], _Place]) -> np.ndarray:
    """Annotation ids of an image; DataError when a flip lacks it or has others."""
    found = [places[image, flip][2] if (image, flip) in places else None for flip in flips]
    first = found[0]
    if first is None or any(ids is None or not np.array_equal(ids, first) for ids in found):
        raise DataError(f"distillation rows of image {image} differ between the flips {list(flips)}")
    return first


def _read_header(record: dict[str, Any], path: Path) -> DistillHeader:
    """A header from its JSON object; DataError naming a missing key or a wrong dtype."""
    missing = [name for name in DistillHeader.__dataclass_fields__ if name not in record]
    if missing:
        raise DataError(f"{path}: key {missing[0]} is missing; dump the step again")
    if record["dtype"] not in DTYPES:
        raise DataError(f"{path}: dtype {record['dtype']}, expected one of {', '.join(DTYPES)}")
    short, long = record["input_size"]
    known = {name: record[name] for name in DistillHeader.__dataclass_fields__}
    return DistillHeader(**known | {"flips": tuple(record["flips"]), "input_size": (short, long)})
