"""Teacher outputs for a training batch, read from the store or computed while the step trains.

Both give a `StoredLogits`: the new-class boxes of every image and the cosines of the previous phase's
classifier on them, before its scale (knowledge distillation of LST, Hu et al. 2020, arXiv 2004.00900).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.data.types import Batch
from maskrcnn_benchmark.incremental.distillation.store import DistillStore
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.model_input import StoredLogits
from maskrcnn_benchmark.utils.errors import DataError


def new_boxes(target: BoxList, num_old: int) -> tuple[Tensor, np.ndarray]:
    """New-class boxes (label > num_old) of a target: (n, 4) xyxy, and their annotation ids (n,) int64."""
    new = target.get_field("labels") > num_old
    return target.convert("xyxy").bbox[new], target.get_field("annotation_ids")[new].cpu().numpy()


class DistillLookup:
    """Teacher cosines for the new-class boxes of a batch, read from the store by annotation id.

    Args:
        store: cosines of the current step.
        num_old: number of old classes. parity: a box is distilled when its label is larger, so the boxes of
            new classes only.
    """

    def __init__(self, store: DistillStore, num_old: int) -> None:
        if store.header.num_old != num_old:
            raise DataError(
                f"{store.folder}: stored for {store.header.num_old} old classes, this step has {num_old}; "
                "give the store of this step"
            )
        self._store = store
        self._num_old = num_old

    def __call__(self, batch: Batch) -> StoredLogits:
        """Boxes (n, 4) xyxy and cosines (n, num_old + 1) per image, on its target's device.

        Raises:
            DataError: when a new-class annotation is not in the store.
        """
        boxes: list[Tensor] = []
        cosines: list[Tensor] = []
        for target, image_id, flipped in zip(batch.targets, batch.image_ids, batch.flipped, strict=True):
            image_boxes, ids = new_boxes(target, self._num_old)
            boxes.append(image_boxes)
            cosines.append(self._cosines(int(image_id), int(flipped), ids).to(image_boxes.device))
        return StoredLogits(boxes=boxes, teacher_cosine=cosines)

    def _cosines(self, image_id: int, flip: int, annotation_ids: np.ndarray) -> Tensor:
        """(n, num_old + 1) float32 cosines of the annotations (n,) of an image."""
        if not len(annotation_ids):
            return torch.zeros((0, self._num_old + 1))
        stored = self._store.read(image_id, flip)
        position = {int(a): i for i, a in enumerate(stored.annotation_ids)}
        missing = [int(a) for a in annotation_ids if int(a) not in position]
        if missing:
            raise DataError(
                f"{self._store.folder}: no teacher outputs for annotation {missing[0]} of image {image_id}; "
                "the annotations changed since they were stored, dump the step again"
            )
        order = [position[int(a)] for a in annotation_ids]
        return torch.from_numpy(stored.cosines[order].astype(np.float32))


class OnlineTeacher:
    """Teacher cosines for the new-class boxes of a batch, computed in whatever size and view it has.

    Every image with such a box passes through the teacher alone and padded as when outputs are stored, so
    that both ways give the same values; other images cost nothing. float32 whatever the student uses.

    Args:
        teacher: model of the previous phase; frozen and put in eval mode.
        num_old: number of old classes; a box is distilled when its label is larger.
        size_divisible: DATALOADER.SIZE_DIVISIBILITY.
    """

    def __init__(self, teacher: GeneralizedRCNN, num_old: int, size_divisible: int) -> None:
        self._teacher = teacher.eval().requires_grad_(False)
        self._num_old = num_old
        self._size_divisible = size_divisible

    def __call__(self, batch: Batch) -> StoredLogits:
        """Boxes (n, 4) xyxy and cosines (n, num_old + 1) per image, on its target's device."""
        boxes: list[Tensor] = []
        cosines: list[Tensor] = []
        for index, target in enumerate(batch.targets):
            image_boxes, _ = new_boxes(target, self._num_old)
            boxes.append(image_boxes)
            cosines.append(self._cosines(batch, index, image_boxes))
        return StoredLogits(boxes=boxes, teacher_cosine=cosines)

    def _cosines(self, batch: Batch, index: int, boxes: Tensor) -> Tensor:
        """(n, num_old + 1) float32 cosines of the boxes (n, 4) of image `index`."""
        if not len(boxes):
            return torch.zeros((0, self._num_old + 1), device=boxes.device)
        height, width = batch.images.image_sizes[index]
        image = batch.images.tensors[index, :, :height, :width]
        images = to_image_list([image], self._size_divisible, [batch.images.original_sizes[index]])
        return self._teacher.box_cosine(images, [boxes])[0].float().to(boxes.device)
