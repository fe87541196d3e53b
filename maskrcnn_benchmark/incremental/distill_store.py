"""Teacher outputs of one step: memory-mapped, found by (picture, flip) and annotation id (lst spec 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import atomic_path, read_json, write_array, write_json

_ARRAY, _INDEX, _HEADER = "logits.npy", "index.npz", "header.json"
STORE_FILES = (_ARRAY, _INDEX, _HEADER)
DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class DistillHeader:
    """What the stored rows belong to.

    Attributes:
        phase: the step whose new boxes are stored. num_old: its old classes (rows have num_old + 1 columns).
        classes_hash: ``PhasePlan.classes_hash`` of the teacher's classes. checkpoint: SHA-256 of the teacher
        file.
        input_size: (shortest, longest) side that pictures were resized to.
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
    """Rows of one picture and flip: cosines (n, num_old + 1) before the scale, background first."""

    image_id: int
    flip: int
    annotation_ids: np.ndarray
    cosines: np.ndarray


class DistillStore:
    """Random access to the teacher rows of a step without reading the file whole.

    A folder holds the array (flips, boxes, num_old + 1), the index (sorted picture ids, offsets, annotation
    ids) and a JSON header; the header is written last, so a folder with a header is complete.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a folder written by ``write_store``; DataError when a part is missing or sizes disagree."""
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
        """Number of pictures."""
        return len(self.image_ids)

    def __contains__(self, image_id: int) -> bool:
        """Whether a picture has stored rows."""
        return image_id in self._position

    def rows(self, image_id: int, flip: int) -> DistillRows:
        """The rows of a picture; the cosines are a view into the file in its stored dtype.

        Raises:
            DataError: when the picture or the flip is not stored.
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


def write_store(folder: str | Path, header: DistillHeader, rows: Sequence[DistillRows]) -> DistillStore:
    """Write the rows of all pictures and flips (any order, a repeated one is dropped) and open the result.

    Raises:
        DataError: when the flips of a picture disagree about its annotations, or a row has the wrong length.
    """
    folder = Path(folder)
    table = {(r.image_id, r.flip): r for r in rows}
    image_ids = np.array(sorted({r.image_id for r in rows}), dtype=np.int64)
    sizes = []
    for image in image_ids.tolist():
        found = [table.get((image, flip)) for flip in header.flips]
        first = found[0]
        if first is None or any(
            r is None or not np.array_equal(r.annotation_ids, first.annotation_ids) for r in found
        ):
            raise DataError(
                f"distillation rows of image {image} differ between the flips {list(header.flips)}"
            )
        if any(
            r.cosines.shape != (len(first.annotation_ids), header.num_old + 1) for r in found if r is not None
        ):
            raise DataError(f"distillation rows of image {image} must have {header.num_old + 1} columns")
        sizes.append(len(first.annotation_ids))
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    (folder / _HEADER).unlink(missing_ok=True)
    shape = (len(header.flips), int(offsets[-1]), header.num_old + 1)
    ids = np.zeros(shape[1], dtype=np.int64)
    logits = np.zeros(shape, dtype=header.dtype)
    for i, image in enumerate(image_ids.tolist()):
        part = slice(int(offsets[i]), int(offsets[i + 1]))
        ids[part] = table[(image, header.flips[0])].annotation_ids
        for row, flip in enumerate(header.flips):
            logits[row, part] = table[(image, flip)].cosines
    write_array(folder / _ARRAY, logits)
    with atomic_path(folder / _INDEX) as path:
        np.savez(path, image_ids=image_ids, offsets=offsets, annotation_ids=ids)
    write_json(folder / _HEADER, asdict(header), indent=1)
    return DistillStore(folder)


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
