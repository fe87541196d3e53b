"""RoI features of sampled training boxes under the previous phase's model, to initialise new classes with."""

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
LabelOfAnnotation = dict[int, int]


def sample_boxes(
    annotations: Iterable[dict[str, Any]], plan: PhasePlan, labels: Iterable[int], limit: int, seed: int
) -> tuple[LabelOfAnnotation, list[int]]:
    """Sample at most `limit` valid boxes of every class by `seed`.

    Returns:
        annotation id -> label, and the ids of the images that hold these boxes, ascending.
    """
    label_of = {plan.classes[label - 1].category_id: label for label in labels}
    valid: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for ann in annotations:
        label = label_of.get(ann["category_id"])
        if label is not None and not ann.get("iscrowd", 0) and not is_degenerate(ann):
            valid[label].append(ann)
    sampled: list[tuple[dict[str, Any], int]] = []
    for label in sorted(valid):
        order = torch.randperm(len(valid[label]), generator=generator(seed, "boxes", label))[:limit]
        sampled += [(valid[label][i], label) for i in order.tolist()]
    images = sorted({int(ann["image_id"]) for ann, _ in sampled})
    return {int(ann["id"]): label for ann, label in sampled}, images


def collect_box_features(
    model: GeneralizedRCNN,
    batches: Iterable[Batch],
    boxes: LabelOfAnnotation,
    *,
    device: torch.device,
    progress: Progress,
) -> dict[int, Tensor]:
    """Compute RoI features of `boxes` by label: (n, D) float32 on the CPU, in the order of annotation ids.

    Collective over ranks: `batches` are this rank's images, the result holds the boxes of all ranks and does
    not depend on their number. A class without a box left after clipping to the image is missing.
    """
    model.eval()
    per_rank: dict[int, np.ndarray] = {}
    for batch in batches:
        batch = batch.to(device)
        ids = [target.get_field("annotation_ids").tolist() for target in batch.targets]
        chosen = [[i for i, annotation in enumerate(image) if annotation in boxes] for image in ids]
        image_boxes = [t.convert("xyxy").bbox[index] for t, index in zip(batch.targets, chosen, strict=True)]
        features = model.box_features(batch.images, image_boxes)
        for image, index, values in zip(ids, chosen, features, strict=True):
            per_rank |= zip((image[i] for i in index), values.cpu().numpy(), strict=True)
        progress.update()
    gathered: dict[int, np.ndarray] = {}
    for part in all_gather_objects(per_rank):
        gathered |= part
    by_label: dict[int, list[np.ndarray]] = defaultdict(list)
    for annotation in sorted(gathered):
        by_label[boxes[annotation]].append(gathered[annotation])
    return {label: torch.from_numpy(np.stack(values)) for label, values in sorted(by_label.items())}
