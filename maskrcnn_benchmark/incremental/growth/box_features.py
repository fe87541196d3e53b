"""What the previous phase's model sees in some training boxes of every class, for the rows of new classes."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.data.datasets.annotations import is_degenerate
from maskrcnn_benchmark.data.types import Batch
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.utils.comm import all_gather_objects
from maskrcnn_benchmark.utils.progress import Progress
from maskrcnn_benchmark.utils.rng import generator

logger = logging.getLogger(__name__)
Boxes = dict[int, int]


def choose_boxes(
    annotations: Iterable[dict[str, Any]], plan: PhasePlan, labels: Iterable[int], limit: int, seed: int
) -> tuple[Boxes, list[int]]:
    """At most `limit` sound boxes of every class, drawn by `seed`.

    Returns:
        annotation id -> label, and the ids of the images that hold these boxes, ascending.
    """
    label_of = {plan.classes[label - 1].category_id: label for label in labels}
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for ann in annotations:
        label = label_of.get(ann["category_id"])
        if label is not None and not ann.get("iscrowd", 0) and not is_degenerate(ann):
            found[label].append(ann)
    chosen: list[tuple[dict[str, Any], int]] = []
    for label in sorted(found):
        order = torch.randperm(len(found[label]), generator=generator(seed, "boxes", label))[:limit]
        chosen += [(found[label][i], label) for i in order.tolist()]
    images = sorted({int(ann["image_id"]) for ann, _ in chosen})
    return {int(ann["id"]): label for ann, label in chosen}, images


def collect_features(
    model: GeneralizedRCNN,
    batches: Iterable[Batch],
    boxes: Boxes,
    *,
    device: torch.device,
    progress: Progress,
) -> dict[int, Tensor]:
    """Region features of `boxes` by label: (n, D) float32 on the CPU, in the order of annotation ids.

    `batches` are this rank's share of the images; the result holds the boxes of all ranks and does not
    depend on their number. A class whose boxes all fell to the clipping is missing. Collective over ranks.
    """
    model.eval()
    mine: dict[int, np.ndarray] = {}
    for batch in batches:
        batch = batch.to(device)
        ids = [target.get_field("annotation_ids").tolist() for target in batch.targets]
        places = [[i for i, ann in enumerate(row) if ann in boxes] for row in ids]
        wanted = [t.convert("xyxy").bbox[rows] for t, rows in zip(batch.targets, places, strict=True)]
        features = model.box_features(batch.images, wanted)
        for row, chosen, values in zip(ids, places, features, strict=True):
            mine |= zip((row[i] for i in chosen), values.cpu().numpy(), strict=True)
        progress.update()
    gathered: dict[int, np.ndarray] = {}
    for part in all_gather_objects(mine):
        gathered |= part
    by_label: dict[int, list[np.ndarray]] = defaultdict(list)
    for annotation in sorted(gathered):
        by_label[boxes[annotation]].append(gathered[annotation])
    return {label: torch.from_numpy(np.stack(rows)) for label, rows in sorted(by_label.items())}
