"""Write the store of a step: the teacher's cosines on all new-class boxes, in every stored view."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.data.build import build_train_loader
from maskrcnn_benchmark.data.datasets.detection import DetectionDataset
from maskrcnn_benchmark.data.types import Batch, SampleKey
from maskrcnn_benchmark.engine.launch import rank_device
from maskrcnn_benchmark.incremental.distillation.lookup import new_boxes
from maskrcnn_benchmark.incremental.distillation.store import (
    DistillHeader,
    ImageCosines,
    MemoryBlock,
    write_blocks,
)
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.utils.comm import get_rank, get_world_size
from maskrcnn_benchmark.utils.progress import Progress
from maskrcnn_benchmark.utils.shards import Part, ShardExchange

logger = logging.getLogger(__name__)
MAX_BYTES_IN_MEMORY = 64 * 2**20
"""A rank writes its cosines to a shard file when they take this much memory."""


def dump_store(
    cfg: CfgNode,
    teacher: GeneralizedRCNN,
    view: Callable[[int], DetectionDataset],
    folder: str | Path,
    header: DistillHeader,
    *,
    shard_folder: str | Path,
    what: str,
) -> None:
    """Write the store `folder` with the teacher's cosines on all boxes with a label above header.num_old.

    Every rank must call this; each computes a part of the images.

    Args:
        cfg: image sizes, workers, device.
        view: the training data of the step in view 0 (plain) or 1 (flipped), objects by (label, file).
        shard_folder: seen by all ranks, which exchange their cosines there. what: for the progress lines.
    """
    device = rank_device(cfg.MODEL.DEVICE)
    teacher = teacher.to(device)
    exchange = CosineExchange(shard_folder, header)
    for flip in header.flips:
        dataset = view(flip)
        new = [i for i in range(len(dataset)) if max(dataset.get_labels(i), default=0) > header.num_old]
        indices = new[get_rank() :: get_world_size()]
        batches = build_train_loader(cfg, dataset, batches=[[SampleKey(index)] for index in indices])
        name = f"{what} for {'flipped' if flip else 'plain'} images"
        progress = Progress(len(indices), name, logger)
        exchange.add(
            dump_cosines(teacher, batches, flip, num_old=header.num_old, device=device, progress=progress)
        )
    exchange.write_store(folder)


def dump_cosines(
    model: GeneralizedRCNN,
    batches: Iterable[Batch],
    flip: int,
    *,
    num_old: int,
    device: torch.device,
    progress: Progress,
) -> Iterator[ImageCosines]:
    """Compute the teacher's cosines (all columns, before the scale) on the new-class boxes of `batches`.

    The batches must show every image flipped (flip 1) or none (flip 0). The model stays in eval mode.
    """
    model.eval()
    for batch in batches:
        batch = batch.to(device)
        new = [new_boxes(target, num_old) for target in batch.targets]
        cosines = model.box_cosine(batch.images, [boxes for boxes, _ in new])
        for image_id, (_, ids), cosine in zip(batch.image_ids, new, cosines, strict=True):
            if len(ids):
                yield ImageCosines(int(image_id), flip, ids, cosine.float().cpu().numpy())
        progress.update()


class CosineExchange:
    """Collects the cosines of all ranks through shard files; no rank holds more than `max_bytes` of them.

    Every rank must open it and call `write_store`; one may have nothing to add.
    """

    def __init__(
        self, shard_folder: str | Path, header: DistillHeader, max_bytes: int = MAX_BYTES_IN_MEMORY
    ) -> None:
        """`shard_folder`: seen by all ranks."""
        self._exchange = ShardExchange(shard_folder)
        self._header = header
        self._max_bytes = max_bytes
        self._pending: list[ImageCosines] = []
        self._pending_bytes = 0

    def add(self, images: Iterable[ImageCosines]) -> None:
        """Add cosines of this rank; they go to a shard file whenever `max_bytes` have come together."""
        for image in images:
            self._pending.append(image)
            self._pending_bytes += image.cosines.nbytes
            if self._pending_bytes >= self._max_bytes:
                self._write_shard()

    def _write_shard(self) -> None:
        self._exchange.write(MemoryBlock(self._pending, self._header.num_old).columns)
        self._pending, self._pending_bytes = [], 0

    def write_store(self, folder: str | Path) -> None:
        """Write the store `folder` on rank 0 from the cosines of all ranks; collective over ranks."""
        if self._pending:
            self._write_shard()

        def write(parts: list[Part]) -> None:
            write_blocks(folder, self._header, parts)

        self._exchange.read(write)
