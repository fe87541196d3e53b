"""Keypoints of a COCO-format annotation file: names, order in flipped images, values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile, Record
from maskrcnn_benchmark.utils.errors import DataError

_SIDES = {"left": "right", "right": "left"}


def keypoint_names(annotations: AnnotationFile, category_order: Sequence[int]) -> list[str]:
    """Return the names that the categories `category_order` list under "keypoints".

    A category without such a list has no keypoints. Raises DataError when none has one, and when two lists
    differ: the model has one list of keypoints for all classes.
    """
    chosen = set(category_order)
    lists = [c["keypoints"] for c in annotations.categories if c["id"] in chosen and c.get("keypoints")]
    where = annotations.path or "the annotations"
    if not lists:
        raise DataError(
            f'{where}: no category has a list "keypoints" of names; a keypoint data set needs it (left and '
            "right are swapped in flipped images), or set MODEL.KEYPOINT_ON False"
        )
    if any(names != lists[0] for names in lists):
        raise DataError(f"{where}: categories have different keypoints; train on one of them at a time")
    return [str(name) for name in lists[0]]


def flipped_order(names: Sequence[str]) -> tuple[int, ...]:
    """Index of the keypoint that replaces each one in a flipped image: left_eye for right_eye, ..."""
    indices = {name: index for index, name in enumerate(names)}
    order = []
    for index, name in enumerate(names):
        side = next((word for word in _SIDES if word in name), None)
        counterpart = name if side is None else name.replace(side, _SIDES[side])
        order.append(indices.get(counterpart, index))
    return tuple(order)


def check_keypoints(annotations: AnnotationFile, rows: np.ndarray, count: int) -> None:
    """Raise what `read_keypoints` raises for the records at `rows`, int64 (N,) in file order."""
    records = annotations.raw["annotations"]
    for row in rows.tolist():
        _check_count(records[row], count, annotations.path)


def read_keypoints(records: Sequence[Record], count: int, path: str) -> Tensor:
    """Read keypoints of N records, float32 (N, count, 3) x, y, visibility; zeros without keypoints.

    Raises DataError naming the annotation whose list has another length.
    """
    points = torch.zeros((len(records), count, 3))
    for row, record in enumerate(records):
        _check_count(record, count, path)
        if (values := record.get("keypoints")) is not None:
            points[row] = torch.tensor(values, dtype=torch.float32).reshape(count, 3)
    return points


def _check_count(record: Record, count: int, path: str) -> None:
    """Raise DataError when the keypoints of a record are not `count`."""
    values = record.get("keypoints")
    if values is not None and len(values) != 3 * count:
        raise DataError(
            f"annotation file {path}: annotation {record['id']} has {len(values)} keypoint values; "
            f"its category names {count} keypoints, which makes {3 * count}"
        )
