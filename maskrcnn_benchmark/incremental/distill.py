"""Dumping the teacher's outputs before a step, and handing them to the training loop (lst spec section 6)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.data.types import Batch
from maskrcnn_benchmark.incremental.distill_store import DistillHeader, DistillRows, DistillStore, write_store
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.modeling.distill import DistillBatch
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.comm import get_world_size, on_main
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.progress import Progress
from maskrcnn_benchmark.utils.shards import ShardExchange


def new_boxes(target: BoxList, num_old: int) -> tuple[Tensor, np.ndarray]:
    """New-class boxes (label > num_old) of a target: (n, 4) xyxy, and their annotation ids (n,) int64."""
    new = target.get_field("labels") > num_old
    return target.convert("xyxy").bbox[new], target.get_field("annotation_ids")[new].cpu().numpy()


class DistillLookup:
    """Finds the stored teacher rows for the new-class boxes of a batch, by annotation id.

    Args:
        store: rows of the current step.
        num_old: number of old classes; a box is distilled when its label is larger (parity: the boxes of the
            new classes, lst spec 6.3).
    """

    def __init__(self, store: DistillStore, num_old: int) -> None:
        if store.header.num_old != num_old:
            raise DataError(
                f"{store.folder}: rows for {store.header.num_old} old classes, this step has {num_old}"
            )
        self._store = store
        self._num_old = num_old

    def __call__(self, batch: Batch) -> DistillBatch:
        """Boxes and teacher rows of every picture, on its target's device; both empty without new boxes.

        Raises:
            DataError: when a new-class annotation has no stored row.
        """
        boxes: list[Tensor] = []
        cosines: list[Tensor] = []
        for target, image_id, flipped in zip(batch.targets, batch.image_ids, batch.flipped, strict=True):
            found, ids = new_boxes(target, self._num_old)
            boxes.append(found)
            cosines.append(self._rows(int(image_id), int(flipped), ids).to(found.device))
        return DistillBatch(boxes=boxes, teacher_cosine=cosines)

    def _rows(self, image_id: int, flip: int, annotation_ids: np.ndarray) -> Tensor:
        """(n, num_old + 1) float32 teacher rows of the given annotations."""
        if not len(annotation_ids):
            return torch.zeros((0, self._num_old + 1))
        stored = self._store.rows(image_id, flip)
        position = {int(a): i for i, a in enumerate(stored.annotation_ids)}
        missing = [int(a) for a in annotation_ids if int(a) not in position]
        if missing:
            raise DataError(
                f"{self._store.folder}: no distillation row for annotation {missing[0]} of image {image_id}; "
                "the annotations changed since the dump, dump the step again"
            )
        order = [position[int(a)] for a in annotation_ids]
        return torch.from_numpy(stored.cosines[order].astype(np.float32))


def dump_rows(
    model: GeneralizedRCNN,
    batches: Iterable[Batch],
    flip: int,
    *,
    num_old: int,
    device: torch.device,
    progress: Progress,
) -> list[DistillRows]:
    """Teacher cosines on the new-class boxes of this rank's pictures, all columns, before the scale.

    ``batches`` must show every picture mirrored (flip 1) or none (flip 0). The model stays in eval mode.
    """
    model.eval()
    rows: list[DistillRows] = []
    for batch in batches:
        batch = batch.to(device)
        found = [new_boxes(target, num_old) for target in batch.targets]
        with torch.no_grad():
            cosines = model.box_cosine(batch.images, [boxes for boxes, _ in found])
        for image_id, (_, ids), cosine in zip(batch.image_ids, found, cosines, strict=True):
            if len(ids):
                rows.append(DistillRows(int(image_id), flip, ids, cosine.float().cpu().numpy()))
        progress.update()
    return rows


def merge_rows(
    folder: str | Path, header: DistillHeader, rows: list[DistillRows], *, shard_folder: str | Path
) -> None:
    """Collect the shares of all ranks through files in `shard_folder`; rank 0 writes the store.

    Every rank must call it; one may have no rows.
    """
    if get_world_size() == 1:
        write_store(folder, header, rows)
        return
    exchange = ShardExchange(shard_folder)
    exchange.write(_to_columns(rows, header.num_old + 1))
    merged = exchange.merge()

    def write() -> None:
        if merged is not None:
            write_store(folder, header, _to_rows(merged.columns))

    on_main(write)


def _to_columns(rows: list[DistillRows], width: int) -> dict[str, np.ndarray]:
    """Rows of all pictures one after another, and of every picture its id, flip and number of boxes."""
    return {
        "pictures": np.array([(r.image_id, r.flip, len(r.annotation_ids)) for r in rows], np.int64).reshape(
            -1, 3
        ),
        "annotation_ids": np.concatenate([np.zeros(0, np.int64), *(r.annotation_ids for r in rows)]),
        "cosines": np.concatenate([np.zeros((0, width), np.float32), *(r.cosines for r in rows)]),
    }


def _to_rows(columns: dict[str, np.ndarray]) -> list[DistillRows]:
    """The inverse of `_to_columns`."""
    ends = np.cumsum(columns["pictures"][:, 2])
    return [
        DistillRows(
            int(image), int(flip), columns["annotation_ids"][end - n : end], columns["cosines"][end - n : end]
        )
        for (image, flip, n), end in zip(columns["pictures"], ends, strict=True)
    ]
