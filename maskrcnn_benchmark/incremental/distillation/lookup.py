"""Dumping the teacher's outputs before a step, and handing them to the training loop (lst spec section 6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.data.types import Batch
from maskrcnn_benchmark.incremental.distillation.store import (
    DistillHeader,
    DistillRows,
    DistillStore,
    RowBlock,
    write_blocks,
)
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.model_input import StoredLogits
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.progress import Progress
from maskrcnn_benchmark.utils.shards import Part, ShardExchange

SHARE_BYTES = 64 * 2**20
"""Rows of a rank go to a file when they take so much memory."""


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

    def __call__(self, batch: Batch) -> StoredLogits:
        """Boxes and teacher rows of every image, on its target's device; both empty without new boxes.

        Raises:
            DataError: when a new-class annotation has no stored row.
        """
        boxes: list[Tensor] = []
        cosines: list[Tensor] = []
        for target, image_id, flipped in zip(batch.targets, batch.image_ids, batch.flipped, strict=True):
            found, ids = new_boxes(target, self._num_old)
            boxes.append(found)
            cosines.append(self._rows(int(image_id), int(flipped), ids).to(found.device))
        return StoredLogits(boxes=boxes, teacher_cosine=cosines)

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
) -> Iterator[DistillRows]:
    """Teacher cosines on the new-class boxes of this rank's images, all columns, before the scale.

    `batches` must show every image mirrored (flip 1) or none (flip 0). The model stays in eval mode.
    """
    model.eval()
    for batch in batches:
        batch = batch.to(device)
        found = [new_boxes(target, num_old) for target in batch.targets]
        cosines = model.box_cosine(batch.images, [boxes for boxes, _ in found])
        for image_id, (_, ids), cosine in zip(batch.image_ids, found, cosines, strict=True):
            if len(ids):
                yield DistillRows(int(image_id), flip, ids, cosine.float().cpu().numpy())
        progress.update()


class RowSharing:
    """Brings the rows of all ranks together through files; no rank holds more than `held_bytes` of them.

    Every rank must open it and call `merge`; one may have no rows.
    """

    def __init__(
        self, shard_folder: str | Path, header: DistillHeader, held_bytes: int = SHARE_BYTES
    ) -> None:
        """`shard_folder`: seen by all ranks."""
        self._exchange = ShardExchange(shard_folder)
        self._header = header
        self._limit = held_bytes
        self._rows: list[DistillRows] = []
        self._held = 0

    def add(self, rows: Iterable[DistillRows]) -> None:
        """Take rows of this rank; they go to a file whenever enough have come together."""
        for one in rows:
            self._rows.append(one)
            self._held += one.cosines.nbytes
            if self._held >= self._limit:
                self._hand_over()

    def _hand_over(self) -> None:
        self._exchange.write(RowBlock(self._rows, self._header.num_old).columns)
        self._rows, self._held = [], 0

    def merge(self, folder: str | Path) -> None:
        """Rank 0 writes the store `folder`."""
        if self._rows:
            self._hand_over()

        def write(parts: list[Part]) -> None:
            write_blocks(folder, self._header, parts)

        self._exchange.read(write)
