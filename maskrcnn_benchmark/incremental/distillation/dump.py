"""Storing the teacher's outputs for a step: images with new objects, in every view (lst spec 6.1)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from yacs.config import CfgNode

from maskrcnn_benchmark.data.build import build_train_loader
from maskrcnn_benchmark.data.datasets.coco import DetectionDataset
from maskrcnn_benchmark.data.types import SampleKey
from maskrcnn_benchmark.engine.launch import process_device
from maskrcnn_benchmark.incremental.distillation.lookup import RowSharing, dump_rows
from maskrcnn_benchmark.incremental.distillation.store import DistillHeader
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.utils.comm import get_rank, get_world_size
from maskrcnn_benchmark.utils.progress import Progress

logger = logging.getLogger(__name__)


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

    Args:
        cfg: image sizes, workers, device.
        view: the training data of the step in the view 0 (plain) or 1 (mirrored), objects by (label, file).
        shard_folder: where several processes hand over their shares. what: for the progress lines.

    Every process must call this; each takes its share of the images.
    """
    device = process_device(cfg.MODEL.DEVICE)
    teacher = teacher.to(device)
    sharing = RowSharing(shard_folder, header)
    for flip in header.flips:
        dataset = view(flip)
        new = [i for i in range(len(dataset)) if max(dataset.get_labels(i), default=0) > header.num_old]
        share = new[get_rank() :: get_world_size()]
        batches = build_train_loader(cfg, dataset, batches=[[SampleKey(index)] for index in share])
        name = f"{what} for {'mirrored' if flip else 'plain'} images"
        progress = Progress(len(share), name, logger)
        rows = dump_rows(teacher, batches, flip, num_old=header.num_old, device=device, progress=progress)
        sharing.add(rows)
    sharing.merge(folder)
