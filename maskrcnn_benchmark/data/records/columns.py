"""The values of all annotations of a file as arrays: what training and evaluation need at once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

Record = dict[str, Any]

NO_MASK, POLYGONS, RLE_TEXT, RLE_LIST, EMPTY = range(5)
"""Codes of `AnnotationColumns.segmentation`: no segmentation; polygons of which at least one has three
points; run lengths as compressed text; run lengths as a list of counts; a list without a usable polygon (an
empty
mask)."""

DTYPES: dict[str, tuple[type, int]] = {
    "ids": (np.int64, 0),
    "image_ids": (np.int64, 0),
    "category_ids": (np.int64, 0),
    "boxes": (np.float64, 4),
    "areas": (np.float64, 0),
    "crowd": (np.bool_, 0),
    "ignore": (np.bool_, 0),
    "segmentation": (np.uint8, 0),
    "extents": (np.float32, 4),
    "visible": (np.int64, 0),
    "mended": (np.bool_, 0),
}
"""Array -> dtype and number of values per annotation (0: one, without an axis of its own)."""


@dataclass(frozen=True)
class AnnotationColumns:
    """Arrays over all annotations (N,) in file order, by the rule of `annotation.read_annotation`.

    Attributes:
        ids, image_ids, category_ids: int64.
        boxes: float64 (N, 4), x, y, width, height as in the file.
        areas: float64, `area` of the file; where that is missing, pixels of the mask, else of the box.
        crowd, ignore: bool, the flags `iscrowd` and `ignore`.
        segmentation: uint8, a code: NO_MASK, POLYGONS, RLE_TEXT, RLE_LIST or EMPTY.
        extents: float32 (N, 4), left, top, right, bottom of the polygons' points (of three points or more),
            or of the pixels of run lengths; NaN without either.
        visible: int64, number of labelled keypoints, -1 for a record without keypoints.
        mended: bool, the record says it differently: `annotation.mended_record` gives it as these arrays do.
    """

    ids: np.ndarray
    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    ignore: np.ndarray
    segmentation: np.ndarray
    extents: np.ndarray
    visible: np.ndarray
    mended: np.ndarray

    def __len__(self) -> int:
        """Number of annotations."""
        return len(self.ids)

    @property
    def masked(self) -> np.ndarray:
        """Whether each record has a segmentation, perhaps an empty one: bool (N,)."""
        return self.segmentation != NO_MASK

    def degenerate(self) -> np.ndarray:
        """Whether a side of each box is at most one pixel, bool (N,): those are not trained on (parity)."""
        return (self.boxes[:, 2] <= 1) | (self.boxes[:, 3] <= 1)

    def outline(self, row: int) -> Record:
        """The record of `row` without its segmentation: id, image_id, category_id, bbox, iscrowd."""
        return {
            "id": int(self.ids[row]),
            "image_id": int(self.image_ids[row]),
            "category_id": int(self.category_ids[row]),
            "bbox": self.boxes[row].tolist(),
            "iscrowd": int(self.crowd[row]),
        }

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the arrays."""
        return tuple(field.name for field in fields(cls))
