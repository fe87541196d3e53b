"""The released distillation file (`distill_logits_*.json`), converted to and from the store without loss.

Layout: a list of two objects, first unflipped then flipped; each maps the image id (as text) to one list of
num_old + 1 cosines per new-class box, in (label, file) order of the boxes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskrcnn_benchmark.incremental.distillation.store import (
    DistillHeader,
    DistillStore,
    ImageCosines,
    write_store,
)
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json, write_json
from maskrcnn_benchmark.utils.text import shortened

_IMAGE_ID = re.compile(r"-?[0-9]{1,18}")


def new_box_ids(data: Mapping[str, Any], category_order: Sequence[int], num_old: int) -> dict[int, list[int]]:
    """Image id -> annotation ids of its boxes with a label above `num_old`, in (label, file) order.

    Label = 1 + position in `category_order`. As in training, crowd annotations are skipped, boxes are clipped
    to the image, and those without area are left out; so are images without a box.

    Args:
        data: annotations in COCO or LVIS layout.
    """
    labels = {category: i for i, category in enumerate(category_order, start=1)}
    by_image: dict[int, list[dict[str, Any]]] = {}
    for ann in data["annotations"]:
        if labels.get(ann["category_id"], 0) > num_old and not ann.get("iscrowd", 0):
            by_image.setdefault(ann["image_id"], []).append(ann)
    sizes = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
    order = {}
    for image, anns in by_image.items():
        anns.sort(key=lambda ann: labels[ann["category_id"]])
        boxes = torch.tensor([ann["bbox"] for ann in anns], dtype=torch.float32)
        target = BoxList(boxes, sizes[image], "xywh").convert("xyxy")
        target.add_field("ids", torch.tensor([ann["id"] for ann in anns]))
        ids = target.clip_to_image(remove_empty=True).get_field("ids").tolist()
        if ids:
            order[image] = ids
    return order


def check_store_complete(store: DistillStore, boxes: Mapping[int, Sequence[int]]) -> None:
    """Raise DataError unless the store has cosines for every annotation of `boxes` (see `new_box_ids`)."""
    missing = []
    for image, ids in boxes.items():
        stored = store.read(image, store.header.flips[0]).annotation_ids.tolist() if image in store else []
        missing += [(image, annotation) for annotation in sorted(set(ids) - set(stored))]
    if missing:
        total = sum(len(ids) for ids in boxes.values())
        raise DataError(
            f"{store.folder}: {len(missing)} of {total} new-class boxes have no distillation entry, the "
            f"first is annotation {missing[0][1]} of image {missing[0][0]}; store the outputs of "
            "the previous phase's model for these annotations again (tools/dump_distillation.py)"
        )


def _cosines(values: Any, where: str) -> np.ndarray:
    """The rows of an image, float32 (n, columns); DataError unless they are equally long lists of numbers."""
    try:
        cosines = np.array(values, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise DataError(
            f"{where} is no list of rows of numbers ({shortened(values)}); get the file again, or store the "
            "outputs again"
        ) from None
    if not np.isfinite(cosines).all():
        raise DataError(f"{where} has values that are not finite; store the outputs again")
    return cosines


def import_logits(
    path: str | Path, folder: str | Path, header: DistillHeader, annotation_ids: Mapping[int, Sequence[int]]
) -> DistillStore:
    """Convert a released file into the store `folder`.

    Args:
        header: what the file belongs to; its flips must be (0, 1).
        annotation_ids: image id -> annotation id of each of its lists, see `new_box_ids`.

    Raises:
        DataError: naming the image whose lists do not fit the annotations or have the wrong length.
    """
    content = read_json(path, what="distillation file")
    if not isinstance(content, list) or len(content) != 2 or not all(isinstance(c, dict) for c in content):
        raise DataError(f"{path}: expected a list of two objects (unflipped, flipped)")
    if header.flips != (0, 1):
        raise DataError(f"{path}: a published file holds flips (0, 1), the header says {header.flips}")
    images = []
    for flip, table in enumerate(content):
        for key, values in table.items():
            if not _IMAGE_ID.fullmatch(key):
                raise DataError(f"{path}: {shortened(key)} is no image id")
            image = int(key)
            ids = np.array(annotation_ids.get(image, []), dtype=np.int64)
            cosines = _cosines(values, f"{path}: the entry of image {image}")
            if cosines.shape != (len(ids), header.num_old + 1):
                raise DataError(
                    f"{path}: image {image} has rows of shape {cosines.shape}, expected {len(ids)} new-class "
                    f"boxes x {header.num_old + 1} columns; the file belongs to other annotations"
                )
            images.append(ImageCosines(image, flip, ids, cosines))
    return write_store(folder, header, images)


def export_logits(store: DistillStore, path: str | Path) -> None:
    """Write a store in the released layout; float32 values survive exactly (printed as doubles).

    Raises:
        DataError: when the store lacks one of the flips 0 and 1.
    """
    content = [
        {
            str(image): store.read(image, flip).cosines.astype(np.float64).tolist()
            for image in store.image_ids.tolist()
        }
        for flip in (0, 1)
    ]
    write_json(path, content)
