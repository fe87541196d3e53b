"""The teacher's outputs computed while the step trains, for views that nobody can store (lst spec 6.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.data.types import Batch
from maskrcnn_benchmark.incremental.distillation.lookup import new_boxes
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.structures.model_input import StoredLogits


class OnlineTeacher:
    """Gives the previous phase's cosines on the new-class boxes of a batch, in any size and view.

    Every image with such a box passes through the teacher alone and padded as when outputs are stored, so
    that both ways give the same numbers; other images cost nothing. float32 whatever the student uses.

    Args:
        teacher: model of the previous phase; frozen and put in eval mode.
        num_old: its classes; a box is distilled when its label is larger.
        size_divisible: DATALOADER.SIZE_DIVISIBILITY.
    """

    def __init__(self, teacher: GeneralizedRCNN, num_old: int, size_divisible: int) -> None:
        self._teacher = teacher.eval().requires_grad_(False)
        self._num_old = num_old
        self._size_divisible = size_divisible

    def __call__(self, batch: Batch) -> StoredLogits:
        """Boxes and teacher rows of every image, on its target's device; both empty without new boxes."""
        boxes: list[Tensor] = []
        cosines: list[Tensor] = []
        for index, target in enumerate(batch.targets):
            found, _ = new_boxes(target, self._num_old)
            boxes.append(found)
            cosines.append(self._rows(batch, index, found))
        return StoredLogits(boxes=boxes, teacher_cosine=cosines)

    def _rows(self, batch: Batch, index: int, boxes: Tensor) -> Tensor:
        """(n, num_old + 1) float32 cosines of boxes (n, 4) of one image."""
        if not len(boxes):
            return torch.zeros((0, self._num_old + 1), device=boxes.device)
        height, width = batch.images.image_sizes[index]
        image = batch.images.tensors[index, :, :height, :width]
        images = to_image_list([image], self._size_divisible, [batch.images.original_sizes[index]])
        return self._teacher.box_cosine(images, [boxes])[0].float().to(boxes.device)
