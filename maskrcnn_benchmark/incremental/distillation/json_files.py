"""The published distillation file, converted to and from the store, lossless at float32 (lst spec 6.1).

Layout: a list of two objects, first unflipped then flipped; each maps the image id (as text) to one row of
num_old + 1 numbers per new-class box, in (label, file) order of the boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskrcnn_benchmark.incremental.distillation.store import (
    DistillHeader,
    DistillRows,
    DistillStore,
    write_store,
)
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.split import Annotations
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json, write_json


def new_annotation_order(data: Annotations, plan: PhasePlan, phase: int) -> dict[int, list[int]]:
    """Image id -> ids of the new-class annotations of a step that training sees, in published box order."""
    return box_order(data, plan.seen_ids(phase), plan.num_old(phase))


def box_order(data: Annotations, category_order: Sequence[int], num_old: int) -> dict[int, list[int]]:
    """Image id -> annotation ids of its boxes with a label above `num_old`, in (label, file) order.

    Label = 1 + position in `category_order`. As in training, crowds count for nothing, boxes are clipped to
    the image, and those without area are left out; so are images without a box.
    """
    labels = {category: i for i, category in enumerate(category_order, start=1)}
    found: dict[int, list[dict[str, Any]]] = {}
    for ann in data["annotations"]:
        if labels.get(ann["category_id"], 0) > num_old and not ann.get("iscrowd", 0):
            found.setdefault(ann["image_id"], []).append(ann)
    sizes = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
    order = {}
    for image, anns in found.items():
        anns.sort(key=lambda ann: labels[ann["category_id"]])
        boxes = torch.tensor([ann["bbox"] for ann in anns], dtype=torch.float32)
        target = BoxList(boxes, sizes[image], "xywh").convert("xyxy")
        target.add_field("ids", torch.tensor([ann["id"] for ann in anns]))
        ids = target.clip_to_image(remove_empty=True).get_field("ids").tolist()
        if ids:
            order[image] = ids
    return order


def check_complete(store: DistillStore, boxes: Mapping[int, Sequence[int]]) -> None:
    """Raise DataError unless the store has a row for every annotation of `boxes` (see `box_order`)."""
    lacking = []
    for image, ids in boxes.items():
        stored = store.rows(image, store.header.flips[0]).annotation_ids.tolist() if image in store else []
        lacking += [(image, annotation) for annotation in sorted(set(ids) - set(stored))]
    if lacking:
        total = sum(len(ids) for ids in boxes.values())
        raise DataError(
            f"{store.folder}: {len(lacking)} of {total} new-class boxes have no distillation entry, the "
            f"first is annotation {lacking[0][1]} of image {lacking[0][0]}; store the outputs of "
            "the previous phase's model for these annotations again (tools/dump_distillation.py)"
        )


def import_published(
    path: str | Path, folder: str | Path, header: DistillHeader, annotation_ids: Mapping[int, Sequence[int]]
) -> DistillStore:
    """Convert a published file into a store.

    Args:
        header: what the file belongs to; its flips must be (0, 1).
        annotation_ids: image id -> annotation id of each of its rows, see `new_annotation_order`.

    Raises:
        DataError: naming the image whose rows do not fit the annotations or have the wrong length.
    """
    content = read_json(path, what="distillation file")
    if not isinstance(content, list) or len(content) != 2 or not all(isinstance(c, dict) for c in content):
        raise DataError(f"{path}: expected a list of two objects (unflipped, flipped)")
    if header.flips != (0, 1):
        raise DataError(f"{path}: a published file holds flips (0, 1), the header says {header.flips}")
    rows = []
    for flip, table in enumerate(content):
        for key, values in table.items():
            image = int(key)
            ids = np.array(annotation_ids.get(image, []), dtype=np.int64)
            cosines = np.array(values, dtype=np.float32)
            if cosines.shape != (len(ids), header.num_old + 1):
                raise DataError(
                    f"{path}: image {image} has rows of shape {cosines.shape}, expected {len(ids)} new-class "
                    f"boxes x {header.num_old + 1} columns; the file belongs to other annotations"
                )
            rows.append(DistillRows(image, flip, ids, cosines))
    return write_store(folder, header, rows)


def export_published(store: DistillStore, path: str | Path) -> None:
    """Write a store in the published layout; float32 values survive exactly (printed as doubles).

    Raises:
        DataError: when the store lacks one of the flips 0 and 1.
    """
    content = [
        {
            str(image): store.rows(image, flip).cosines.astype(np.float64).tolist()
            for image in store.image_ids.tolist()
        }
        for flip in (0, 1)
    ]
    write_json(path, content)
