"""The rule for one annotation: its row of the columns, and the record as the columns say it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from maskrcnn_benchmark.data.records.columns import NO_MASK, AnnotationColumns, Record
from maskrcnn_benchmark.data.records.mends import Mends
from maskrcnn_benchmark.data.records.segmentation import NOWHERE, Outline, read_segmentation
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
    try:
        return _read(record, record_id, mends)
    except ValueError as error:
        raise DataError(f"{where}: annotation {record_id} {error}") from None


def _read(record: Record, record_id: int, mends: Mends) -> Row:
    """The row of a record with an id; ValueError saying what is wrong."""
    for key in _KEYS:
        if key not in record:
            raise ValueError(f'has no "{key}"')
    box, image_id, category_id = record["bbox"], record["image_id"], record["category_id"]
    if not (isinstance(box, list | tuple) and len(box) == 4 and all(map(is_number, box))):
        raise ValueError(f"has the box {shown(box)}; expected four finite values x, y, width, height")
    if not (is_integer(image_id) and is_integer(category_id)):
        raise ValueError(
            f"belongs to image {shown(image_id)} and category {shown(category_id)}; both must be integers"
        )
    crowd, ignore, mended = _flags(record, mends)
    area = _area(record.get("area"))
    code, extents = NO_MASK, NOWHERE
    if "segmentation" in record:
        code, extents, mend, _ = _outline(record, box)
        if mend:
            mends.add(mend, record_id)
            mended = True
    return Row(
        ids=record_id,
        image_ids=image_id,
        category_ids=category_id,
        boxes=tuple(box),
        areas=area,
        crowd=crowd,
        ignore=ignore,
        segmentation=code,
        extents=extents,
        visible=_count_visible(record.get("keypoints")),
        mended=mended or area != area,
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


def _flags(record: Record, mends: Mends) -> tuple[bool, bool, bool]:
    """`iscrowd`, `ignore`, and whether one of them was mended."""
    flags, mended = [False, False], False
    for index, key in enumerate(("iscrowd", "ignore")):
        if key in record:
            try:
                flags[index], how = read_flag(record[key])
            except ValueError as error:
                raise ValueError(f'has "{key}" {error}') from None
            if how:
                mended = True
                mends.add(f'"{key}" written as {how}, read as {str(flags[index]).lower()}', record["id"])
    return flags[0], flags[1], mended


def _area(area: Any) -> float:
    """The value of `area`, NaN where the file has none."""
    if area is None or area != area:
        return math.nan
    if not is_number(area) or area < 0:
        raise ValueError(
            f"has the area {shown(area)}; expected a number of pixels, or none (it is computed then)"
        )
    return float(area)


def _outline(record: Record, box: Sequence[float]) -> Outline:
    """The segmentation of a record; ValueError when it cannot be used."""
    try:
        return read_segmentation(record["segmentation"], box)
    except ValueError as error:
        raise ValueError(
            f"(image {record['image_id']}): its segmentation cannot be used: {error}; correct or remove it"
        ) from None


def _count_visible(keypoints: Any) -> int:
    """Count the keypoints with a visibility above 0; -1 without keypoints."""
    if keypoints is None:
        return -1
    if isinstance(keypoints, list) and len(keypoints) % 3 == 0 and all(map(is_number, keypoints)):
        return sum(visibility > 0 for visibility in keypoints[2::3])
    raise ValueError(
        "has keypoints that are not a list of finite values x, y, visibility, x, y, visibility, ..."
    )
