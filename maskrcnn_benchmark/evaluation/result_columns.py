"""Columns of a COCO or LVIS result list, from the one native reader of such lists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from mmap import mmap
from typing import Any

import numpy as np
import torch

from maskrcnn_benchmark.evaluation.rle import POLYGONS, RleMasks, json_value
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.native import load_ops


def read_columns(content: bytearray | mmap, where: str = "") -> dict[str, Any]:
    """The arguments of `Detections` from the JSON text of a result list.

    where: begins messages and names the file, "" for a list of Python. Raises DataError naming the entry, and
    of a file the byte, of what is wrong.
    """
    load_ops()
    text = (
        torch.from_numpy(np.frombuffer(content, np.uint8))
        if len(content)
        else torch.zeros(0, dtype=torch.uint8)
    )
    columns, entry, byte, message = torch.ops.maskrcnn_benchmark.parse_detections(text)
    if entry >= 0:
        raise DataError(f"{where}detection {entry}: {message}" + (f" at byte {byte}" if where else ""))
    images, categories, scores, boxes, has_box, masks_text, table, areas, mask_scores, lengths, values = (
        column.numpy() for column in columns
    )
    total = len(scores)
    with_mask = int((table[:, 1] >= 0).sum())
    if 0 < with_mask < total:
        raise DataError(
            f"{where}detections: {with_mask} of {total} entries have a segmentation; give all or none"
        )
    masks = None
    if with_mask:
        masks = RleMasks(masks_text, table, None if (table[:, 2] == POLYGONS).any() else areas)
    points = _keypoints(lengths, values, where)
    _fill_boxes(boxes, ~has_box, masks, points)
    return {
        "image_ids": images,
        "category_ids": categories,
        "scores": scores,
        "boxes": boxes,
        "rles": masks,
        "keypoints": points,
        "mask_scores": _all_or_none(mask_scores, where),
    }


def results_text(rows: Sequence[Any]) -> bytearray:
    """The JSON text of a result list; counts may be bytes, numbers and arrays those of numpy."""
    try:
        return bytearray(json.dumps(rows, default=json_value).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"detections: a value that JSON does not hold ({error})") from None


def _keypoints(lengths: np.ndarray, values: np.ndarray, where: str) -> np.ndarray | None:
    """float64 (D, K, 3) of all entries, from the number of values of each (-1: none); None without any."""
    if not (lengths >= 0).any():
        return None
    if (lengths != lengths[0]).any() or lengths[0] % 3:
        raise DataError(
            f"{where}detections: give every entry keypoints, equally many triples x, y, visibility, or none"
        )
    return values.reshape(len(lengths), -1, 3)


def _all_or_none(mask_scores: np.ndarray, where: str) -> np.ndarray | None:
    """The mask scores (NaN: none) of all entries; None when none has one."""
    absent = np.isnan(mask_scores)
    if absent.all():
        return None
    if absent.any():
        raise DataError(
            f"{where}detections: {int((~absent).sum())} of {len(absent)} entries have a mask_score; give all "
            "or none"
        )
    return mask_scores


def _fill_boxes(
    boxes: np.ndarray, absent: np.ndarray, masks: RleMasks | None, points: np.ndarray | None
) -> None:
    """Fill in `boxes` (D, 4) where bool `absent` (D,): the tight box of the mask, else of the keypoints."""
    if not absent.any():
        return
    if masks is not None:
        boxes[absent] = masks.select(np.flatnonzero(absent)).measure()[1]
    elif points is not None and points.shape[1]:
        low, high = points[absent, :, :2].min(axis=1), points[absent, :, :2].max(axis=1)
        boxes[absent] = np.concatenate([low, high - low], axis=1)
