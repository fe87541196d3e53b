"""The keys of annotations that are needed for all of them at once, as arrays."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from maskrcnn_benchmark.utils.errors import DataError

Record = dict[str, Any]
_KEYS = ("image_id", "category_id", "bbox")


@dataclass(frozen=True)
class AnnotationColumns:
    """Arrays over all annotations (N,) in file order.

    `ids`, `image_ids`, `category_ids` int64; `boxes` float64 (N, 4): x, y, width, height as in the file;
    `crowd` bool; `masked` bool, whether the record has a segmentation; `visible` int64, its number of
    labelled keypoints, -1 for a record without keypoints.
    """

    ids: np.ndarray
    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray
    masked: np.ndarray
    visible: np.ndarray

    def __len__(self) -> int:
        """Number of annotations."""
        return len(self.ids)

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


class ColumnBuilder:
    """Checks annotation records one by one and collects their columns."""

    def __init__(self, where: str) -> None:
        """`where` begins every message, for example "annotation file train.json"."""
        self._where = where
        self._seen: set[int] = set()
        self._ids, self._images, self._categories = array("q"), array("q"), array("q")
        self._boxes, self._crowd, self._masked = array("d"), array("b"), array("b")
        self._visible = array("q")

    def add(self, record: Any) -> None:
        """Check the next record and append it to the columns.

        Raises DataError for an id that is missing or occurs twice, a missing key, ids that are no integers,
        a box that is not four finite values, and keypoints that are no triples of values.
        """
        record_id = record.get("id") if isinstance(record, dict) else None
        if not isinstance(record_id, int) or isinstance(record_id, bool) or abs(record_id) >= 2**63:
            raise DataError(f'{self._where}: annotation number {len(self._ids)} has no integer "id"')
        if record_id in self._seen:
            raise DataError(
                f"{self._where}: annotation id {record_id} occurs twice; give every annotation its own id"
            )
        self._seen.add(record_id)
        for key in _KEYS:
            if key not in record:
                raise DataError(f'{self._where}: annotation {record_id} has no "{key}"')
        box = record["bbox"]
        if not _is_box(box):
            raise DataError(
                f"{self._where}: annotation {record_id} has the box {box!r}; expected four finite values "
                "x, y, width, height"
            )
        try:
            self._images.append(record["image_id"])
            self._categories.append(record["category_id"])
        except (TypeError, OverflowError):
            raise DataError(
                f"{self._where}: annotation {record_id} belongs to image {record['image_id']!r} and category "
                f"{record['category_id']!r}; both must be integers"
            ) from None
        self._ids.append(record_id)
        self._boxes.extend(box)
        self._crowd.append(bool(record.get("iscrowd", 0)))
        self._masked.append("segmentation" in record)
        self._visible.append(self._count_visible(record_id, record.get("keypoints")))

    def finish(self, image_ids: set[int], category_ids: set[int]) -> AnnotationColumns:
        """Return the columns; DataError for the first annotation of an unknown image or category."""
        columns = AnnotationColumns(
            ids=np.frombuffer(self._ids, np.int64),
            image_ids=np.frombuffer(self._images, np.int64),
            category_ids=np.frombuffer(self._categories, np.int64),
            boxes=np.frombuffer(self._boxes, np.float64).reshape(-1, 4),
            crowd=np.frombuffer(self._crowd, np.bool_),
            masked=np.frombuffer(self._masked, np.bool_),
            visible=np.frombuffer(self._visible, np.int64),
        )
        unknown = _index_of_unknown(columns.image_ids, image_ids)
        if unknown is not None:
            raise DataError(
                f"{self._where}: annotation {columns.ids[unknown]} belongs to image "
                f'{columns.image_ids[unknown]}, which has no record in "images"; add it or remove the '
                "annotation"
            )
        unknown = _index_of_unknown(columns.category_ids, category_ids)
        if unknown is not None:
            raise DataError(
                f"{self._where}: annotation {columns.ids[unknown]} has the unknown category "
                f'{columns.category_ids[unknown]}; add it to "categories" or remove the annotation'
            )
        return columns

    def _count_visible(self, record_id: int, keypoints: Any) -> int:
        """Count the keypoints with a visibility above 0; -1 without keypoints."""
        if keypoints is None:
            return -1
        if isinstance(keypoints, list) and len(keypoints) % 3 == 0 and all(map(_is_number, keypoints)):
            return sum(visibility > 0 for visibility in keypoints[2::3])
        raise DataError(
            f"{self._where}: annotation {record_id} has keypoints that are not a list of finite values x, y, "
            "visibility, x, y, visibility, ..."
        )


def _is_number(value: Any) -> bool:
    """Whether `value` is a finite value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_box(box: Any) -> bool:
    """Whether `box` is a list of four finite values."""
    return isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))


def _index_of_unknown(ids: np.ndarray, known: set[int]) -> int | None:
    """Index of the first of `ids` (N,) that is not in `known`."""
    wrong = np.flatnonzero(~np.isin(ids, np.fromiter(known, np.int64, len(known))))
    return int(wrong[0]) if len(wrong) else None
