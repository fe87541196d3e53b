"""Boxes that look wrong: corners instead of sizes, fractions, outside the image, not around masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from maskrcnn_benchmark.data.records.builder import image_sizes
from maskrcnn_benchmark.data.records.columns import AnnotationColumns, Record
from maskrcnn_benchmark.data.records.mends import EXAMPLES

SLACK = 1.0
"""Pixels by which a box may reach out of its image."""
MIN_IOU = 0.5
"""A box and the extents of its mask, both widened by SLACK, disagree below this IoU."""


def suspicions(columns: AnnotationColumns, images: Sequence[Record]) -> list[str]:
    """What looks wrong with the boxes of a file, a sentence each with examples; nothing is changed.

    Boxes that are x1, y1, x2, y2 where x, y, width, height are expected; boxes or polygons in fractions of
    the image; boxes that leave their images; boxes that are not around their masks; only crowds.
    """
    if not len(columns):
        return []
    heights, widths = image_sizes(images, columns.image_ids).T
    return list(_suspicions(columns, widths, heights))


def _suspicions(columns: AnnotationColumns, widths: np.ndarray, heights: np.ndarray) -> Iterator[str]:
    """Yield the sentences; widths, heights int64 (N,) of the image of every annotation."""
    boxes = np.asarray(columns.boxes)
    x, y, w, h = boxes.T
    if bool(columns.crowd.all()):
        yield f"all {len(columns)} annotations are crowds (or difficult objects): nothing is trained on"
    if _are_fractions(boxes, widths, heights):
        yield (
            "all boxes lie within 0 and 1, as if they were fractions of the image; multiply them by width "
            f"and height: boxes are x, y, width, height in pixels (annotations {_examples(columns.ids)})"
        )
        return
    outside = (x < -SLACK) | (y < -SLACK) | (x + w > widths + SLACK) | (y + h > heights + SLACK)
    as_corners = (x <= w) & (y <= h) & (w <= widths + SLACK) & (h <= heights + SLACK) & (x >= -SLACK)
    if outside.any() and as_corners.mean() >= 0.95 and (outside & as_corners).mean() >= 0.05:
        yield (
            f"{int(outside.sum())} of {len(columns)} boxes reach out of their images, but all fit as x1, y1, "
            f"x2, y2 (annotations {_examples(columns.ids[outside])}); boxes must be x, y, width, height"
        )
    elif outside.any():
        yield (
            f"{int(outside.sum())} boxes reach more than a pixel out of their images (annotations "
            f"{_examples(columns.ids[outside])}) and are cut; check that boxes are x, y, width, height in "
            "pixels of the recorded size"
        )
    differs = _differs_from_mask(boxes, np.asarray(columns.extents, np.float64), widths, heights)
    if differs.any():
        yield (
            f"{int(differs.sum())} boxes are not around their masks (annotations "
            f"{_examples(columns.ids[differs])}); check bbox and segmentation of these"
        )


def _are_fractions(boxes: np.ndarray, widths: np.ndarray, heights: np.ndarray) -> bool:
    """Whether all boxes lie within 0..1 although some have an extent and images are larger."""
    within = boxes.min() >= 0 and boxes.max() <= 1
    return bool(within and boxes[:, 2:].max() > 0 and min(widths.min(), heights.min()) > 2)


def _differs_from_mask(
    boxes: np.ndarray, extents: np.ndarray, widths: np.ndarray, heights: np.ndarray
) -> np.ndarray:
    """Whether each box (N, 4) xywh disagrees with the extents (N, 4) of its mask in the image: bool (N,)."""
    sides = np.stack([widths, heights], axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        low = np.clip(boxes[:, :2], 0, sides) - SLACK
        high = np.clip(boxes[:, :2] + np.maximum(boxes[:, 2:], 0), 0, sides) + SLACK
        mask_low = np.clip(extents[:, :2], 0, sides) - SLACK
        mask_high = np.clip(extents[:, 2:], 0, sides) + SLACK
        common = np.maximum(np.minimum(high, mask_high) - np.maximum(low, mask_low), 0).prod(axis=1)
        union = (high - low).prod(axis=1) + (mask_high - mask_low).prod(axis=1) - common
        return common < MIN_IOU * union


def _examples(ids: np.ndarray) -> str:
    """The first ids, for a message."""
    first = ", ".join(map(str, ids[:EXAMPLES].tolist()))
    return f"{first}, ..." if len(ids) > EXAMPLES else first
