"""The published distillation file, converted to and from the store, lossless at float32 (lst spec 6.1).

Layout: a list of two objects, first unflipped then flipped; each maps the picture id (as text) to one row of
num_old + 1 numbers per new-class box, in (label, file) order of the boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from maskrcnn_benchmark.data.datasets.annotations import is_degenerate
from maskrcnn_benchmark.incremental.distill_store import DistillHeader, DistillRows, DistillStore, write_store
from maskrcnn_benchmark.incremental.phases import PhasePlan
from maskrcnn_benchmark.incremental.split import Annotations, train_file
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json, write_json


def new_annotation_order(data: Annotations, plan: PhasePlan, phase: int) -> dict[int, list[int]]:
    """Image id -> ids of its non-degenerate new-class annotations of a step, in published box order."""
    new = set(plan.new_ids(phase))
    order: dict[int, list[int]] = {}
    for ann in train_file(data, plan, phase)["annotations"]:
        if ann["category_id"] in new and not is_degenerate(ann) and not ann.get("iscrowd", 0):
            order.setdefault(ann["image_id"], []).append(ann["id"])
    return order


def import_published(
    path: str | Path, folder: str | Path, header: DistillHeader, annotation_ids: Mapping[int, Sequence[int]]
) -> DistillStore:
    """Convert a published file into a store.

    Args:
        header: what the file belongs to; its flips must be (0, 1).
        annotation_ids: image id -> annotation id of each of its rows, see ``new_annotation_order``.

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
