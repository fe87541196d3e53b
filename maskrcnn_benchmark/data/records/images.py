"""The rules for image and category records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from maskrcnn_benchmark.data.records.columns import RLE_LIST, RLE_TEXT, Record
from maskrcnn_benchmark.data.records.mends import Mends
from maskrcnn_benchmark.data.records.runs import measure_runs
from maskrcnn_benchmark.data.records.segmentation import read_segmentation
from maskrcnn_benchmark.data.records.values import is_integer, is_number, is_text, shown
from maskrcnn_benchmark.utils.errors import DataError

MAX_SIDE = 2**20  # pixels
CATEGORY_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")


def _is_count(value: Any) -> bool:
    return is_integer(value) and value >= 0


# key of a category that may be missing, what it may be, in words
_OPTIONAL = (
    ("frequency", lambda value: isinstance(value, str) and value in ("r", "c", "f"), '"r", "c" or "f"'),
    ("instance_count", _is_count, "a whole number from 0 on"),
    ("image_count", _is_count, "a whole number from 0 on"),
    ("keypoints", lambda value: isinstance(value, list) and all(map(is_text, value)), "a list of names"),
)


def read_image_records(images: Sequence[Any], where: str, mends: Mends) -> list[Record]:
    """Return the image records in file order, null lists of categories as empty ones (counted in `mends`).

    Raises DataError naming the image whose id is missing, repeated or no integer of 64 bits, that has no file
    name or URL or one that is no text, whose size is not two positive whole numbers below MAX_SIDE, and whose
    lists of categories (LVIS) are no lists of integers.
    """
    out = []
    for record in unique_records(images, "image", ("width", "height"), where):
        here = f"{where}: image {record['id']}"
        if not (record.get("file_name") or record.get("coco_url")):
            raise DataError(f'{here} has neither "file_name" nor "coco_url"')
        for name in (record.get("file_name"), record.get("coco_url")):
            if name is not None and not is_text(name):
                raise DataError(f"{here} has the name {shown(name)}; expected text")
        sides = record["width"], record["height"]
        if not all(map(_is_side, sides)):
            raise DataError(
                f"{here} has the size {shown(sides[0])} x {shown(sides[1])}; expected two positive whole "
                f"numbers below {MAX_SIDE}"
            )
        out.append(read_category_lists(record, where, mends))
    _check_void(out, where)
    return out


def _check_void(images: Sequence[Record], where: str) -> None:
    """Check the regions `void` that Cityscapes images may have; DataError naming the image."""
    regions = [(image, image["void"]) for image in images if image.get("void") is not None]
    try:
        for image, region in regions:
            here = f"{where}: image {image['id']}"
            if read_segmentation(region, (0, 0, 0, 0)).code not in (RLE_TEXT, RLE_LIST):
                raise ValueError("expected run lengths")
            if list(region["size"]) != [image["height"], image["width"]]:
                raise ValueError(f"it is of the size {region['size']} (height, width)")
    except ValueError as error:
        raise DataError(f'{here} has a "void" that cannot be used: {error}') from None
    problems = measure_runs([region for _, region in regions])[2] if regions else []
    for (image, _), problem in zip(regions, problems, strict=True):
        if problem:
            raise DataError(f'{where}: image {image["id"]} has a "void" that cannot be used: {problem}')


def record_size(image: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of an image record, 0 where it does not say it (content that is no file)."""
    height, width = (image.get(side, 0) for side in ("height", "width"))
    return (int(height) if _is_side(height) else 0), (int(width) if _is_side(width) else 0)


def _is_side(value: Any) -> bool:
    """Whether `value` is a width or height in whole pixels."""
    return is_number(value) and 0 < value < MAX_SIDE and value == int(value)


def read_category_lists(record: Record, where: str, mends: Mends) -> Record:
    """Return an image record whose null lists of categories are empty; DataError for what are no lists."""
    for key in CATEGORY_LISTS:
        ids = record.get(key, ())
        if ids is None:
            mends.add(f'image with "{key}" null, taken as an empty list', record["id"])
            record = record | {key: []}
        elif not (isinstance(ids, list | tuple) and all(map(is_integer, ids))):
            raise DataError(
                f'{where}: image {record["id"]} has "{key}" {shown(ids)}; expected a list of category ids'
            )
    return record


def read_category_records(categories: Sequence[Any], where: str, mends: Mends) -> list[Record]:
    """Return the category records in file order, null values of optional keys left out (counted in `mends`).

    Two categories of one name stay two classes, told apart by their ids; this is counted.

    Raises DataError naming the category whose id is missing, repeated or no integer of 64 bits, whose name is
    missing or no text, whose `frequency` (LVIS) is not r, c or f, and whose counts are no whole numbers.
    """
    out = []
    for record in unique_records(categories, "category", ("name",), where):
        here = f"{where}: category {record['id']}"
        if not is_text(record["name"]):
            raise DataError(f"{here} has the name {shown(record['name'])}; expected text")
        for key, is_valid, expected in _OPTIONAL:
            if key in record and record[key] is None:
                mends.add(f'category with "{key}" null, taken as missing', record["id"])
                record = {k: v for k, v in record.items() if k != key}
            elif key in record and not is_valid(record[key]):
                raise DataError(f'{here} has "{key}" {shown(record[key])}; expected {expected}')
        out.append(record)
    names = Counter(record["name"] for record in out)
    shared = [record["id"] for record in out if names[record["name"]] > 1]
    mends.add_all("category with the name of another, told apart by its id", shared)
    return out


def unique_records(records: Sequence[Any], what: str, keys: tuple[str, ...], where: str) -> list[Record]:
    """Return `records`; DataError for a missing key, and ids that are missing, repeated or no integers."""
    seen: set[int] = set()
    for position, record in enumerate(records):
        record_id: Any = record.get("id") if isinstance(record, dict) else None
        if not is_integer(record_id):
            raise DataError(f'{where}: {what} number {position} has no integer "id"')
        if record_id in seen:
            raise DataError(f"{where}: {what} id {record_id} occurs twice; give every {what} its own id")
        seen.add(record_id)
        for key in keys:
            if key not in record:
                raise DataError(f'{where}: {what} {record_id} has no "{key}"')
    return list(records)
