"""COCO- and LVIS-format annotation files, checked once when they are loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from os import PathLike, fspath
from typing import Any

from ...utils.errors import DataError
from ...utils.files import read_json

Record = dict[str, Any]


class AnnotationFile:
    """The content of one annotation file, indexed by picture.

    Attributes: `images` sorted by id; `categories` in file order; `anns_by_image`: picture id to its
    annotations in file order (every picture has an entry, often an empty one); `raw`: the JSON object;
    `kind` "coco" or "lvis". Boxes are as in the file: x, y, width, height.
    """

    def __init__(self, raw: dict[str, Any], path: str | PathLike[str] = "") -> None:
        """Check and index `raw`; `path` is named in messages.

        Raises DataError naming the file and the record for missing keys, ids that occur twice, annotations of
        unknown pictures or categories, boxes that are not four finite numbers, pictures without a size.
        """
        self.path = fspath(path)
        where = f"annotation file {self.path}" if self.path else "annotations"
        _check_top(raw, where)
        self.raw = raw
        self.categories: list[Record] = raw["categories"]
        self.images: list[Record] = sorted(
            _checked_images(raw["images"], where), key=lambda image: image["id"]
        )
        category_ids = _unique_ids(self.categories, "category", ("name",), where)
        image_ids = {image["id"] for image in self.images}
        self.anns_by_image: dict[int, list[Record]] = {image["id"]: [] for image in self.images}
        _unique_ids(raw["annotations"], "annotation", ("image_id", "category_id", "bbox"), where)
        for ann in raw["annotations"]:
            _check_annotation(ann, image_ids, category_ids, where)
            self.anns_by_image[ann["image_id"]].append(ann)
        federated = any("neg_category_ids" in image for image in self.images[:1])
        self.kind = "lvis" if federated or any("frequency" in c for c in self.categories) else "coco"

    @classmethod
    def load(cls, path: str | PathLike[str]) -> AnnotationFile:
        """Read and check the JSON file `path` (DataError when it is missing, no JSON or wrong)."""
        return cls(read_json(path, "annotation file"), path)

    @property
    def category_ids(self) -> list[int]:
        """Category ids in file order."""
        return [category["id"] for category in self.categories]


def is_degenerate(ann: Record) -> bool:
    """Whether a side of the annotation's box is at most one pixel (core spec 15: useless for training)."""
    return ann["bbox"][2] <= 1 or ann["bbox"][3] <= 1


def _check_top(raw: Any, where: str) -> None:
    """The file is an object with three lists."""
    if not isinstance(raw, dict):
        raise DataError(
            f"{where} must hold a JSON object in COCO or LVIS format, found a {type(raw).__name__}"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(raw.get(key), list):
            raise DataError(
                f'{where} has no list "{key}"; COCO and LVIS files have images, annotations, categories'
            )


def _unique_ids(records: Iterable[Record], what: str, keys: tuple[str, ...], where: str) -> set[int]:
    """Ids of `records`; DataError for a missing key, and ids that are missing or repeated."""
    seen: set[int] = set()
    for position, record in enumerate(records):
        number = record.get("id") if isinstance(record, dict) else None
        if not isinstance(number, int) or isinstance(number, bool):
            raise DataError(f'{where}: {what} number {position} has no integer "id"')
        if number in seen:
            raise DataError(f"{where}: {what} id {number} occurs twice; give every {what} its own id")
        seen.add(number)
        for key in keys:
            if key not in record:
                raise DataError(f'{where}: {what} {number} has no "{key}"')
    return seen


def _checked_images(images: list[Record], where: str) -> list[Record]:
    """`images` when all have a size and a name, else DataError."""
    _unique_ids(images, "picture", ("width", "height"), where)
    for image in images:
        if not (image.get("file_name") or image.get("coco_url")):
            raise DataError(f'{where}: picture {image["id"]} has neither "file_name" nor "coco_url"')
        if not (image["width"] > 0 and image["height"] > 0):
            raise DataError(
                f"{where}: picture {image['id']} has the size {image['width']} x {image['height']}"
            )
    return images


def _check_annotation(ann: Record, image_ids: set[int], category_ids: set[int], where: str) -> None:
    """DataError unless the annotation belongs to a picture and a category and has a finite box."""
    if ann["image_id"] not in image_ids:
        raise DataError(
            f"{where}: annotation {ann['id']} belongs to picture {ann['image_id']}, which has no record in "
            '"images"; add the record or remove the annotation'
        )
    if ann["category_id"] not in category_ids:
        raise DataError(
            f"{where}: annotation {ann['id']} has the unknown category {ann['category_id']}; add it to "
            '"categories" or remove the annotation'
        )
    box = ann["bbox"]
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
    if not numbers or not all(math.isfinite(v) for v in box):
        raise DataError(
            f"{where}: annotation {ann['id']} has the box {box!r}; expected four finite numbers "
            "x, y, width, height"
        )
