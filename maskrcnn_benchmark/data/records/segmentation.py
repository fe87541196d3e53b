"""The rule for `segmentation`: polygons, run lengths as text or as a list, an empty list, or none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from maskrcnn_benchmark.data.records.columns import EMPTY, NO_MASK, POLYGONS, RLE_LIST, RLE_TEXT
from maskrcnn_benchmark.data.records.values import is_integer, is_number, shown
from maskrcnn_benchmark.structures.polygons import MAX_COORDINATE, MIN_POLYGON_VALUES

NOWHERE: tuple[float, ...] = (math.nan,) * 4
SHORT_PARTS = "polygons of fewer than three points left out"
NULL = "segmentation null, taken as missing"
_BOX_TOLERANCE = 1.0  # pixels
_PLAIN = {int, float}


class Outline(NamedTuple):
    """What a segmentation holds: its code, the extents of its polygons, and what was mended ("": nothing).

    `value` is the segmentation as it is used: without polygons of fewer than three points.
    """

    code: int
    extents: tuple[float, ...] = NOWHERE
    mend: str = ""
    value: Any = None


def read_segmentation(value: Any, box: Sequence[float]) -> Outline:
    """Read the segmentation of a record whose box is x, y, width, height.

    Polygons of fewer than three points do not count; without others the mask is empty. Run lengths are
    checked as far as they go without decoding (`runs.check_runs` does the rest).

    Raises ValueError saying what cannot be used: points as pairs, a box in the place of a polygon, a flat
    list, an odd number of coordinates, values that are no finite numbers or beyond MAX_COORDINATE, run
    lengths without size or counts, of a size that is not two positive integers, or that do not add up.
    """
    if value is None:
        return Outline(NO_MASK, mend=NULL)
    if isinstance(value, dict):
        return _read_runs(value)
    if not isinstance(value, list | tuple):
        raise ValueError(
            f"a mask is a list of polygons or run lengths, got {type(value).__name__} ({shown(value)})"
        )
    if not value:
        return Outline(EMPTY, value=value)
    extents, kept = [], []
    for part in value:
        bounds = _bounds(part)
        if len(part) >= MIN_POLYGON_VALUES:
            kept.append(part)
            extents.append(bounds)
    if len(kept) == len(value):
        return Outline(POLYGONS, _joined(extents), value=value)
    if not kept:
        _refuse_other_forms(value, box)
        return Outline(EMPTY, mend=SHORT_PARTS, value=[])
    return Outline(POLYGONS, _joined(extents), SHORT_PARTS, kept)


def _joined(extents: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """Left, top, right, bottom around all."""
    if len(extents) == 1:
        return extents[0]
    left, top, right, bottom = zip(*extents, strict=True)
    return min(left), min(top), max(right), max(bottom)


def _bounds(part: Any) -> tuple[float, ...]:
    """Left, top, right, bottom of one polygon, () of an empty one; ValueError when it cannot be used."""
    if not isinstance(part, list | tuple):
        if is_number(part):
            raise ValueError("a flat list of values; put every polygon into a list of its own: [[x, y, ...]]")
        raise ValueError(f"a polygon is a list of numbers x, y, x, y, ... (found {shown(part)})")
    if not set(map(type, part)) <= _PLAIN:
        for value in part:
            if isinstance(value, list | tuple):
                raise ValueError(
                    "a polygon whose points are lists [x, y]; write every polygon as one flat list x, y, x, y"
                )
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"a polygon is a list of numbers x, y, x, y, ... (found {shown(value)})")
    if len(part) % 2:
        raise ValueError(f"a polygon of {len(part)} values; they must be pairs x, y, x, y, ...")
    if not part:
        return ()
    xs, ys = part[0::2], part[1::2]
    bounds = min(xs), min(ys), max(xs), max(ys)
    try:
        # the sum tells of NaN, which minima may pass over
        valid = math.isfinite(sum(part)) and max(map(abs, bounds)) <= MAX_COORDINATE
    except OverflowError:  # integers of hundreds of digits
        valid = False
    if not valid:
        raise ValueError(f"a polygon with coordinates that are not finite or beyond {MAX_COORDINATE} pixels")
    return bounds


def _refuse_other_forms(parts: Sequence[Sequence[float]], box: Sequence[float]) -> None:
    """Raise ValueError when parts of fewer than three points are one polygon or a box in another form."""
    if len(parts) >= 3 and all(len(part) == 2 for part in parts):
        raise ValueError(
            f"a polygon written as {len(parts)} points [x, y]; write it as one flat list: [[x, y, x, y, ...]]"
        )
    x, y, width, height = box
    for part in parts:
        if len(part) == 4 and any(
            max(abs(a - b) for a, b in zip(part, other, strict=True)) <= _BOX_TOLERANCE
            for other in (box, (x, y, x + width, y + height))
            if width > 1 and height > 1
        ):
            raise ValueError(
                "its box in the place of a polygon; give the outline as x, y, x, y, ... or an empty list for "
                "no mask"
            )


def _read_runs(value: dict[str, Any]) -> Outline:
    """Read run lengths; ValueError when they cannot be used."""
    missing = {"size", "counts"} - value.keys()
    if missing:
        raise ValueError(f"run lengths without {' and '.join(sorted(missing))}")
    size, counts = value["size"], value["counts"]
    if not (isinstance(size, list | tuple) and len(size) == 2 and all(map(is_integer, size))):
        raise ValueError(f"run lengths with the size {shown(size)}; expected [height, width]")
    if min(size) < 1:
        raise ValueError(f"run lengths with the size {shown(size)}; expected a positive height and width")
    if isinstance(counts, str | bytes):
        return Outline(RLE_TEXT, value=value)
    if not isinstance(counts, list):
        raise ValueError(f"run lengths of type {type(counts).__name__}; expected text or a list")
    if not all(is_integer(count) and count >= 0 for count in counts):
        raise ValueError("run lengths that are no whole numbers from 0 on")
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f"run lengths of {sum(counts)} pixels in a mask of (h,w)={tuple(size)}")
    return Outline(RLE_LIST, value=value)
