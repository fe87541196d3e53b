"""Annotations of a COCO- or LVIS-format file as flat arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from maskrcnn_benchmark.utils.errors import DataError


@dataclass
class GroundTruth:
    """Annotations of the listed categories as parallel arrays of length G, in file order.

    Attributes:
        image_ids: int64 (I,) ascending, all images of the file (also those without annotation).
        category_ids: int64 (K,) ascending, all categories of the file.
        images, categories: int64 (G,), indices into `image_ids` and `category_ids`.
        boxes: float64 (G, 4) as x, y, width, height in pixels. areas: float64 (G,), the file's `area`.
        ignore: bool (G,), neither found nor missed. crowd: bool (G,), ignored and matched any number of
        times. annotations: the G dicts of the file, for masks on demand. sizes: int64 (I, 2), height and
        width of the images, 0 where the file does not say.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    images: np.ndarray
    categories: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    ignore: np.ndarray
    crowd: np.ndarray
    annotations: list[dict[str, Any]]
    sizes: np.ndarray

    def select(self, order: np.ndarray) -> GroundTruth:
        """Select annotations by int64 indices, in that order; the tables of ids stay."""
        return replace(
            self,
            images=self.images[order],
            categories=self.categories[order],
            boxes=self.boxes[order],
            areas=self.areas[order],
            ignore=self.ignore[order],
            crowd=self.crowd[order],
            annotations=[self.annotations[index] for index in order.tolist()],
        )


def indices_in(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Index of each of `values` (N,) in the ascending `table`: int64 (N,), -1 where it is absent."""
    if not len(table):
        return np.full(len(values), -1, np.int64)
    nearest = np.minimum(np.searchsorted(table, values), len(table) - 1)
    return np.where(table[nearest] == values, nearest, -1).astype(np.int64)


def read_ground_truth(dataset: Mapping[str, Any], *, crowd: bool, drop_empty: bool) -> GroundTruth:
    """Read the annotations of `dataset`, a dict with the keys `images`, `annotations`, `categories`.

    `crowd` reads `iscrowd` as COCO does (such objects are ignored and match repeatedly); otherwise the
    optional `ignore` of LVIS counts. `drop_empty` leaves out annotations of area 0 or infinite area
    (parity: lvis-api filters with strict bounds). Annotations of categories that the file does not list
    are left out. Raises DataError naming the annotation whose image is unknown or that misses a key.
    """
    image_ids = np.unique(np.array([image["id"] for image in dataset["images"]], np.int64))
    category_ids = np.unique(np.array([category["id"] for category in dataset["categories"]], np.int64))
    known = set(category_ids.tolist())
    listed = [annotation for annotation in dataset["annotations"] if annotation["category_id"] in known]
    for annotation in listed:
        absent = [key for key in ("id", "image_id", "bbox", "area") if key not in annotation]
        if absent:
            raise DataError(f"annotation {annotation.get('id', '?')}: key {absent[0]!r} is missing")
    if drop_empty:
        listed = [annotation for annotation in listed if 0 < annotation["area"] < float("inf")]
    images = indices_in(image_ids, _column(listed, "image_id", np.int64))
    if len(images) and images.min() < 0:
        lost = listed[int(images.argmin())]
        raise DataError(f"annotation {lost['id']}: its image_id {lost['image_id']} is not among the images")
    flags = np.array(
        [bool(annotation.get("iscrowd" if crowd else "ignore", 0)) for annotation in listed], bool
    )
    return GroundTruth(
        image_ids=image_ids,
        category_ids=category_ids,
        images=images,
        categories=indices_in(category_ids, _column(listed, "category_id", np.int64)),
        boxes=np.array([annotation["bbox"] for annotation in listed], np.float64).reshape(-1, 4),
        areas=_column(listed, "area", np.float64),
        ignore=flags,
        crowd=flags if crowd else np.zeros(len(listed), bool),
        annotations=listed,
        sizes=_sizes(dataset["images"], image_ids),
    )


def _sizes(images: Sequence[Mapping[str, Any]], image_ids: np.ndarray) -> np.ndarray:
    rows = {image["id"]: (image.get("height", 0), image.get("width", 0)) for image in images}
    return np.array([rows[image_id] for image_id in image_ids.tolist()], np.int64).reshape(-1, 2)


def _column(annotations: Sequence[Mapping[str, Any]], key: str, dtype: type) -> np.ndarray:
    return np.array([annotation[key] for annotation in annotations], dtype)
