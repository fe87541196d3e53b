"""Collects the rows of all annotations of a file and checks them against its images and categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maskrcnn_benchmark.data.records.annotation import Row, read_annotation
from maskrcnn_benchmark.data.records.columns import (
    DTYPES,
    POLYGONS,
    RLE_LIST,
    RLE_TEXT,
    AnnotationColumns,
    Record,
)
from maskrcnn_benchmark.data.records.images import record_size
from maskrcnn_benchmark.data.records.mends import Mends
from maskrcnn_benchmark.data.records.runs import measure_polygons, measure_runs
from maskrcnn_benchmark.structures.polygons import MIN_POLYGON_VALUES
from maskrcnn_benchmark.utils.errors import DataError

AT_ONCE = 4096
"""Records whose rows, or masks, are held in memory as Python objects at a time."""
MAX_PIXELS = 2**32 - 1
AREA_MISSING = "area missing or null, computed from the mask, else from the box"


class ColumnBuilder:
    """The columns of a file: `add` every annotation in file order, then `finish`.

    A native reader of ordinary records may fill the arrays itself (`base`), and give `add` only the records
    that it leaves to the rule, with their rows. An ordinary record has every key once, integers of 64 bits as
    ids, a box of four finite numbers, no `area` or a finite one from 0 on, `iscrowd` and `ignore` absent or
    0, 1, false, true, polygons of three points or more in an even number of finite coordinates within
    MAX_COORDINATE, run lengths of a valid shape (see `read_segmentation`), or no segmentation. `finish` does
    for all rows what needs other records: repeated ids, references, run lengths, areas that are NaN.
    """

    def __init__(self, where: str, base: Mapping[str, np.ndarray] | None = None) -> None:
        """`where` begins messages, for example "annotation file train.json"; `base`: arrays of all rows."""
        self._where = where
        self._base = dict(base or {})
        self.mends = Mends()
        self._pending: list[Row] = []
        self._rows: list[int] = []
        self._parts: list[dict[str, np.ndarray]] = []
        self._count = 0

    def add(self, record: Any, row: int | None = None) -> None:
        """Read the next record, or with a `base` the record of a `row`; DataError as `read_annotation`."""
        number = self._count if row is None else row
        self._pending.append(read_annotation(record, number, self._where, self.mends))
        self._rows.append(number)
        self._count += 1
        if len(self._pending) >= AT_ONCE:
            self._flush()

    def finish(
        self, images: Sequence[Record], category_ids: set[int], records: Sequence[Record]
    ) -> AnnotationColumns:
        """Return the columns of all `records`, given the checked images and categories of the file.

        Raises DataError for the first annotation whose id occurs twice, of an unknown image or category, and
        whose run lengths are not of the size of its image or do not describe a mask.
        """
        arrays = self._arrays()
        ids = arrays["ids"]
        repeated = _first_repeated(ids)
        if repeated is not None:
            raise DataError(
                f"{self._where}: annotation id {repeated} occurs twice; give every annotation its own id"
            )
        image_ids = np.array([image["id"] for image in images], np.int64)
        unknown = np.flatnonzero(~np.isin(arrays["image_ids"], image_ids))
        if len(unknown):
            raise DataError(
                f"{self._where}: annotation {ids[unknown[0]]} belongs to image "
                f'{arrays["image_ids"][unknown[0]]}, which has no record in "images"; add it or remove the '
                "annotation"
            )
        known = np.array(sorted(category_ids), np.int64)
        unknown = np.flatnonzero(~np.isin(arrays["category_ids"], known))
        if len(unknown):
            raise DataError(
                f"{self._where}: annotation {ids[unknown[0]]} has the unknown category "
                f'{arrays["category_ids"][unknown[0]]}; add it to "categories" or remove the annotation'
            )
        sizes = image_sizes(images, arrays["image_ids"])
        pixels = self._check_runs(arrays, sizes, records)
        self._compute_areas(arrays, sizes, records, pixels)
        return AnnotationColumns(**arrays)

    def _flush(self) -> None:
        """Turn the pending rows into arrays."""
        values = zip(*self._pending, strict=True)
        self._parts.append(
            {
                name: np.array(column, dtype).reshape((-1, width) if width else -1)
                for (name, (dtype, width)), column in zip(DTYPES.items(), values, strict=True)
            }
        )
        self._pending = []

    def _arrays(self) -> dict[str, np.ndarray]:
        """The arrays of all rows."""
        if self._pending:
            self._flush()
        added = {
            name: np.concatenate(
                [np.zeros((0, width) if width else 0, dtype), *(p[name] for p in self._parts)]
            )
            for name, (dtype, width) in DTYPES.items()
        }
        if not self._base:
            return added
        for name, values in added.items():
            self._base[name][self._rows] = values
        return self._base

    def _check_runs(
        self, arrays: dict[str, np.ndarray], sizes: np.ndarray, records: Sequence[Record]
    ) -> dict[int, int]:
        """Check all run lengths and fill in their extents; the pixels of those rows whose area is missing."""
        rows = np.flatnonzero(np.isin(arrays["segmentation"], (RLE_TEXT, RLE_LIST)))
        pixels: dict[int, int] = {}
        for first in range(0, len(rows), AT_ONCE):
            part = rows[first : first + AT_ONCE]
            values = [records[row]["segmentation"] for row in part.tolist()]
            areas, boxes, problems = measure_runs(values)
            for row, value, problem in zip(part.tolist(), values, problems, strict=True):
                (height, width), image = value["size"], tuple(sizes[row, ::-1].tolist())
                if 0 not in image and (width, height) != image:
                    problem = f"mask of size (w,h)={(width, height)} in an image of size {image}"
                elif problem:
                    problem = (
                        f"run lengths that do not describe a mask of (w,h)={(width, height)} ({problem})"
                    )
                if problem:
                    raise self._unusable(arrays, row, problem)
            filled = areas > 0
            corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
            arrays["extents"][part[filled]] = corners[filled]
            missing = np.isnan(arrays["areas"][part])
            pixels |= dict(zip(part[missing].tolist(), areas[missing].tolist(), strict=True))
        return pixels

    def _compute_areas(
        self,
        arrays: dict[str, np.ndarray],
        sizes: np.ndarray,
        records: Sequence[Record],
        pixels: dict[int, int],
    ) -> None:
        """Fill in missing areas: pixels of the mask; where it has none, the area of the box."""
        rows = np.flatnonzero(np.isnan(arrays["areas"]))
        if not len(rows):
            return
        sides = np.maximum(arrays["boxes"][rows, 2:], 0)
        with np.errstate(over="ignore"):
            areas = np.minimum(sides[:, 0] * sides[:, 1], np.finfo(np.float64).max)
        pixels_of_image = sizes[rows].prod(1)
        polygonal = arrays["segmentation"][rows] == POLYGONS
        polygonal &= (sizes[rows].min(1) > 0) & (pixels_of_image <= MAX_PIXELS)
        for first in range(0, len(rows), AT_ONCE):
            part = np.arange(first, min(first + AT_ONCE, len(rows)))[polygonal[first : first + AT_ONCE]]
            shapes = [_polygons(records[row]) for row in rows[part].tolist()]
            try:
                counts = measure_polygons(shapes, sizes[rows[part]])
            except ValueError:
                raise self._unmeasurable(arrays, shapes, sizes, rows[part]) from None
            areas[part[counts > 0]] = counts[counts > 0]
        for index, row in enumerate(rows.tolist()):
            if pixels.get(row):
                areas[index] = pixels[row]
        arrays["areas"][rows] = areas
        arrays["mended"][rows] = True
        self.mends.add_all(AREA_MISSING, arrays["ids"][rows].tolist())

    def _unmeasurable(
        self,
        arrays: dict[str, np.ndarray],
        shapes: list[list[list[float]]],
        sizes: np.ndarray,
        rows: np.ndarray,
    ) -> DataError:
        """The error of the first of these rows whose polygons cannot be rasterised."""
        for row, shape in zip(rows.tolist(), shapes, strict=True):
            try:
                measure_polygons([shape], sizes[row : row + 1])
            except ValueError as error:
                return self._unusable(arrays, row, str(error).splitlines()[0])
        return DataError(f"{self._where}: polygons cannot be rasterised")

    def _unusable(self, arrays: dict[str, np.ndarray], row: int, problem: str) -> DataError:
        """The error of a segmentation that cannot be used."""
        return DataError(
            f"{self._where}: annotation {arrays['ids'][row]} (image {arrays['image_ids'][row]}): its "
            f"segmentation cannot be used: {problem}; correct or remove it"
        )


def _polygons(record: Record) -> list[list[float]]:
    """The polygons of a record that count."""
    return [part for part in record["segmentation"] if len(part) >= MIN_POLYGON_VALUES]


def image_sizes(images: Sequence[Record], image_ids: np.ndarray) -> np.ndarray:
    """Height and width of the image of each annotation, int64 (N, 2); `image_ids` int64 (N,), all known.

    0 where a record does not say it (content that was not read from a file).
    """
    ids = np.array([image["id"] for image in images], np.int64)
    table = np.array([record_size(image) for image in images], np.int64).reshape(-1, 2)
    order = np.argsort(ids, kind="stable")
    return table[order][np.searchsorted(ids[order], image_ids)] if len(ids) else np.zeros((0, 2), np.int64)


def _first_repeated(ids: np.ndarray) -> int | None:
    """The value of `ids` (N,) that occurs again first, in file order."""
    order = np.argsort(ids, kind="stable")
    same = np.flatnonzero(ids[order][1:] == ids[order][:-1]) + 1
    return int(ids[order[same].min()]) if len(same) else None
