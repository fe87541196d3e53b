"""From RetinaNet's outputs to detections (core spec 12, "Test")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maskrcnn_benchmark.layers.nms import batched_nms
from maskrcnn_benchmark.modeling.box_coder import BoxCoder, clip_boxes
from maskrcnn_benchmark.modeling.checks import require_finite
from maskrcnn_benchmark.structures.boxlist import BoxList


@dataclass(frozen=True)
class DetectionSettings:
    """Scores must be above `score_thresh`; `pre_nms_top_n` counts (anchor, class) pairs per level and image;
    `detections_per_img` <= 0 sets no limit.
    """

    score_thresh: float
    pre_nms_top_n: int
    nms_thresh: float
    detections_per_img: int

    @property
    def least_logit(self) -> float:
        """The logit of `score_thresh`."""
        if self.score_thresh <= 0:
            return -math.inf
        return math.inf if self.score_thresh >= 1 else math.log(self.score_thresh / (1 - self.score_thresh))


class RetinaNetPostProcessor:
    """Best pairs of every level, suppression per class over all levels (also a single one), limit."""

    def __init__(self, box_coder: BoxCoder, settings: DetectionSettings) -> None:
        self.box_coder = box_coder
        self.settings = settings

    @torch.no_grad()
    def __call__(
        self,
        anchors: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[BoxList]:
        """Detections per image, best first (ties: finer level, then earlier pair), clipped to the image.

        Per level: anchors (n_l,4), logits (B,n_l,classes), deltas (B,n_l,4). Fields: `scores` float32,
        `labels` int64 1..C. Raises UsageError for non-finite logits or deltas.
        """
        for level_logits, level_deltas in zip(logits, deltas, strict=True):
            require_finite(level_logits, "the class logits")
            require_finite(level_deltas, "the box deltas")
        return [
            self._one_image(anchors, [part[i] for part in logits], [part[i] for part in deltas], size)
            for i, size in enumerate(image_sizes)
        ]

    def _one_image(
        self,
        anchors: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_size: tuple[int, int],
    ) -> BoxList:
        size = (image_size[1], image_size[0])
        levels = [self._best_of_level(*level) for level in zip(anchors, logits, deltas, strict=True)]
        boxes, chosen, labels = (torch.cat(parts) for parts in zip(*levels, strict=True))
        boxes, scores = clip_boxes(boxes, size), chosen.sigmoid()
        if self.settings.nms_thresh > 0:
            keep = batched_nms(boxes, chosen, labels, self.settings.nms_thresh)
            boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        order = scores.argsort(descending=True, stable=True)
        if self.settings.detections_per_img > 0:
            order = order[: self.settings.detections_per_img]
        result = BoxList(boxes[order], size, mode="xyxy")
        result.add_field("scores", scores[order])
        result.add_field("labels", labels[order])
        return result

    def _best_of_level(
        self, anchors: Tensor, logits: Tensor, deltas: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decoded boxes (k,4), float32 logits (k,) and labels (k,) of the best pairs of one level."""
        classes = logits.shape[1]
        flat = logits.flatten()
        index = (flat > self.settings.least_logit).nonzero().flatten()
        values = flat[index].float()
        if len(index) > self.settings.pre_nms_top_n:
            values, best = values.topk(self.settings.pre_nms_top_n)
            index = index[best]
        row = torch.div(index, classes, rounding_mode="floor")
        return self.box_coder.decode(deltas[row], anchors[row]), values, index % classes + 1
