"""Annotations of a COCO- or LVIS-format file as flat arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from maskrcnn_benchmark.data.records.content import Picked, read_content
from maskrcnn_benchmark.data.records.images import record_size


@dataclass
class GroundTruth:
    """Annotations of the listed categories as parallel arrays of length G, in file order.

    Attributes:
        image_ids: int64 (I,) ascending, all images of the file (also those without annotation).
        category_ids: int64 (K,) ascending, all categories of the file.
        images, categories: int64 (G,), indices into `image_ids` and `category_ids`.
        boxes: float64 (G, 4) as x, y, width, height in pixels. areas: float64 (G,), see `AnnotationColumns`.
        ignore: bool (G,), neither found nor missed. crowd: bool (G,), ignored and matched any number of
        times. annotations: the G records, for masks on demand. sizes: int64 (I, 2), height and width of the
        images, 0 where the file does not say.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    images: np.ndarray
    categories: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    ignore: np.ndarray
    crowd: np.ndarray
    annotations: Sequence[dict[str, Any]]
    sizes: np.ndarray

    def select(self, order: np.ndarray) -> GroundTruth:
        """Select annotations by int64 indices, in that order; the tables of ids stay."""
        return replace(
            self,
            images=self.images[order],
            categories=self.categories[order],
            boxes=self.boxes[order],
            areas=self.areas[order],
            ignore=self.ignore[order],
            crowd=self.crowd[order],
            annotations=self._select_records(order),
        )

    def _select_records(self, order: np.ndarray) -> Sequence[dict[str, Any]]:
        if isinstance(self.annotations, Picked):
            return self.annotations.select(order)
        return Picked(self.annotations, order)


def indices_in(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Index of each of `values` (N,) in the ascending `table`: int64 (N,), -1 where it is absent."""
    if not len(table):
        return np.full(len(values), -1, np.int64)
    nearest = np.minimum(np.searchsorted(table, values), len(table) - 1)
    return np.where(table[nearest] == values, nearest, -1).astype(np.int64)


def read_ground_truth(dataset: Mapping[str, Any], *, crowd: bool, drop_empty: bool) -> GroundTruth:
    """Read the annotations of `dataset`, a dict with the keys `images`, `annotations`, `categories`.

    They are read by the rules of `data.records`, as for training; the `raw` of an `AnnotationFile` is not
    read again. `crowd` reads `iscrowd` as COCO does (such objects are ignored and match repeatedly);
    otherwise the optional `ignore` of LVIS counts. `drop_empty` leaves out annotations of area 0 (parity:
    lvis-api filters with strict bounds). Annotations of categories that the file does not list are left out.
    Raises DataError naming the annotation that cannot be used, see `read_content`.
    """
    columns, records = read_content(dataset)
    image_ids, sizes = _image_table(dataset["images"])
    category_ids = np.unique(np.array([category["id"] for category in dataset["categories"]], np.int64))
    rows = np.flatnonzero(columns.areas > 0) if drop_empty else np.arange(len(columns))
    flags = (columns.crowd if crowd else columns.ignore)[rows]
    return GroundTruth(
        image_ids=image_ids,
        category_ids=category_ids,
        images=indices_in(image_ids, columns.image_ids[rows]),
        categories=indices_in(category_ids, columns.category_ids[rows]),
        boxes=columns.boxes[rows],
        areas=columns.areas[rows],
        ignore=flags,
        crowd=flags if crowd else np.zeros(len(rows), bool),
        annotations=Picked(records, rows),
        sizes=sizes,
    )


def _image_table(images: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Ids int64 (I,) ascending, height and width int64 (I, 2) of the images; 0 where they are not said."""
    ids = np.array([image["id"] for image in images], np.int64)
    sizes = np.array([record_size(image) for image in images], np.int64).reshape(-1, 2)
    # of records with one id the last counts
    unique, last = np.unique(ids[::-1], return_index=True)
    return unique, sizes[::-1][last]
