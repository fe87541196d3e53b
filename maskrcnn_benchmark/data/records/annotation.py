"""The rule for one annotation: its row of the columns, and the record as the columns say it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from maskrcnn_benchmark.data.records.columns import AnnotationColumns, Record
from maskrcnn_benchmark.data.records.mends import Mends
from maskrcnn_benchmark.data.records.segmentation import Outline, read_segmentation
from maskrcnn_benchmark.data.records.values import is_integer, is_number, read_flag, shown
from maskrcnn_benchmark.utils.errors import DataError

_KEYS = ("image_id", "category_id", "bbox")


class Row(NamedTuple):
    """Values of one annotation in the order of `AnnotationColumns`; NaN for an area that is missing."""

    ids: int
    image_ids: int
    category_ids: int
    boxes: tuple[float, ...]
    areas: float
    crowd: bool
    ignore: bool
    segmentation: int
    extents: tuple[float, ...]
    visible: int
    mended: bool


def read_annotation(record: Any, number: int, where: str, mends: Mends) -> Row:
    """Read annotation `number` (counted from 0) of `where`, for example "annotation file train.json".

    What is unusual but has one meaning is mended and counted in `mends`: flags that are written as text or
    null, a null area or segmentation, polygons of fewer than three points.

    Raises DataError naming file, record and fix for a missing or wrong id, a missing key, ids that are no
    integers of 64 bits, a box that is not four finite numbers, flags that are neither true nor false, an area
    that is negative or no finite number, a segmentation that cannot be used (see `read_segmentation`), and
    keypoints that are no triples of numbers.
    """
    record_id: Any = record.get("id") if isinstance(record, dict) else None
    if not is_integer(record_id):
        raise DataError(f'{where}: annotation number {number} has no integer "id"')
    here = f"{where}: annotation {record_id}"
    for key in _KEYS:
        if key not in record:
            raise DataError(f'{here} has no "{key}"')
    box = record["bbox"]
    if not (isinstance(box, list | tuple) and len(box) == 4 and all(map(is_number, box))):
        raise DataError(f"{here} has the box {shown(box)}; expected four finite values x, y, width, height")
    image_id, category_id = record["image_id"], record["category_id"]
    if not (is_integer(image_id) and is_integer(category_id)):
        raise DataError(
            f"{here} belongs to image {shown(image_id)} and category {shown(category_id)}; both must be "
            "integers"
        )
    crowd, ignore, changed = _flags(record, here, mends)
    area = _area(record, here)
    outline = _outline(record, box, here)
    if outline.mend:
        mends.add(outline.mend, record_id)
    return Row(
        ids=record_id,
        image_ids=image_id,
        category_ids=category_id,
        boxes=tuple(box),
        areas=area,
        crowd=crowd,
        ignore=ignore,
        segmentation=outline.code,
        extents=outline.extents,
        visible=_count_visible(record.get("keypoints"), here),
        mended=changed or bool(outline.mend) or math.isnan(area),
    )


def mended_record(record: Record, columns: AnnotationColumns, row: int) -> Record:
    """The record at `row` as the columns say it: flags 0 or 1, with its area, only usable polygons."""
    if not columns.mended[row]:
        return record
    out = dict(record)
    for key, values in (("iscrowd", columns.crowd), ("ignore", columns.ignore)):
        if key in out:
            out[key] = int(values[row])
    out["area"] = float(columns.areas[row])
    outline = read_segmentation(out.pop("segmentation", None), out["bbox"])
    return out if outline.value is None else out | {"segmentation": outline.value}


def _flags(record: Record, here: str, mends: Mends) -> tuple[bool, bool, bool]:
    """`iscrowd`, `ignore`, and whether one of them was mended."""
    flags, changed = [], False
    for key in ("iscrowd", "ignore"):
        try:
            flag, how = read_flag(record.get(key, 0))
        except ValueError as error:
            raise DataError(f'{here} has "{key}" {error}') from None
        if how:
            mends.add(f'"{key}" written as {how}, read as {str(flag).lower()}', record["id"])
        flags.append(flag)
        changed = changed or bool(how)
    return flags[0], flags[1], changed


def _area(record: Record, here: str) -> float:
    """`area`, NaN where the file has none."""
    area = record.get("area")
    if area is None or area != area:
        return math.nan
    if not is_number(area) or area < 0:
        raise DataError(
            f"{here} has the area {shown(area)}; expected a number of pixels, or none (it is computed then)"
        )
    return float(area)


def _outline(record: Record, box: Sequence[float], here: str) -> Outline:
    """The segmentation of a record; DataError when it cannot be used."""
    if "segmentation" not in record:
        return Outline(0)
    try:
        return read_segmentation(record["segmentation"], box)
    except ValueError as error:
        raise DataError(
            f"{here} (image {record['image_id']}): its segmentation cannot be used: {error}; correct or "
            "remove it"
        ) from None


def _count_visible(keypoints: Any, here: str) -> int:
    """Count the keypoints with a visibility above 0; -1 without keypoints."""
    if keypoints is None:
        return -1
    if isinstance(keypoints, list) and len(keypoints) % 3 == 0 and all(map(is_number, keypoints)):
        return sum(visibility > 0 for visibility in keypoints[2::3])
    raise DataError(
        f"{here} has keypoints that are not a list of finite values x, y, visibility, x, y, visibility, ..."
    )
