"""From outputs of RetinaNet to detections (Lin et al. 2017, section 4.1, "Inference")."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn_benchmark.layers.nms import batched_nms
from maskrcnn_benchmark.modeling.box_coder import BoxCoder, clip_boxes
from maskrcnn_benchmark.modeling.checks import require_finite
from maskrcnn_benchmark.modeling.heads.common import detection_boxlist
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.geometry import Size


class RetinaNetPostProcessor:
    """Top-k per level, then greedy NMS per class over all levels (also over a single one), then the limit."""

    def __init__(
        self,
        box_coder: BoxCoder,
        *,
        score_thresh: float,
        pre_nms_top_n: int,
        nms_thresh: float,
        detections_per_img: int,
    ) -> None:
        """Scores must be above `score_thresh`; `pre_nms_top_n` counts (anchor, class) pairs per level and
        image; `nms_thresh` <= 0 keeps all boxes; `detections_per_img` <= 0 sets no limit.
        """
        self.box_coder = box_coder
        self.min_logit = _logit(score_thresh)
        self.pre_nms_top_n = pre_nms_top_n
        self.nms_thresh = nms_thresh
        self.detections_per_img = detections_per_img

    @torch.no_grad()
    def __call__(
        self,
        anchors: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Sequence[Size],
    ) -> list[BoxList]:
        """Detections per image, best first (ties: finer level, then earlier pair), clipped to the image.

        Per level: anchors (n_l, 4), logits (B, n_l, C), deltas (B, n_l, 4). Fields: `scores` float32,
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
        self, anchors: Sequence[Tensor], logits: Sequence[Tensor], deltas: Sequence[Tensor], image_size: Size
    ) -> BoxList:
        """Detections of one image: per level anchors (n_l, 4), logits (n_l, C), deltas (n_l, 4)."""
        levels = [self._best_of_level(*level) for level in zip(anchors, logits, deltas, strict=True)]
        boxes, chosen, labels = (torch.cat(parts) for parts in zip(*levels, strict=True))
        boxes, scores = clip_boxes(boxes, (image_size[1], image_size[0])), chosen.sigmoid()
        if self.nms_thresh > 0:
            keep = batched_nms(boxes, chosen, labels, self.nms_thresh)
            boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        order = scores.argsort(descending=True, stable=True)
        if self.detections_per_img > 0:
            order = order[: self.detections_per_img]
        return detection_boxlist(boxes[order], scores[order], labels[order], image_size)

    def _best_of_level(
        self, anchors: Tensor, logits: Tensor, deltas: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decoded boxes (k, 4), float32 logits (k,) and labels (k,) of the best pairs of one level.

        anchors (n, 4), logits (n, C), deltas (n, 4).
        """
        classes = logits.shape[1]
        flat = logits.flatten()
        index = (flat > self.min_logit).nonzero().flatten()
        values = flat[index].float()
        if len(index) > self.pre_nms_top_n:
            values, best = values.topk(self.pre_nms_top_n)
            index = index[best]
        row = torch.div(index, classes, rounding_mode="floor")
        return self.box_coder.decode(deltas[row], anchors[row]), values, index % classes + 1


def _logit(score: float) -> float:
    """Logit of a score, -inf for 0 and below, inf for 1 and above."""
    if score <= 0:
        return -math.inf
    return math.inf if score >= 1 else math.log(score / (1 - score))
