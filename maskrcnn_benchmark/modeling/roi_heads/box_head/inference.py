"""From class logits and box deltas to detections (core spec 9, "Test")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maskrcnn_benchmark.layers.nms import batched_nms
from maskrcnn_benchmark.modeling.box_coder import BoxCoder, clip_boxes
from maskrcnn_benchmark.modeling.checks import require_finite
from maskrcnn_benchmark.structures.boxlist import BoxList

if TYPE_CHECKING:
    from yacs.config import CfgNode

FIRST_CANDIDATES = 1000
"""Candidates of the first suppression when detections are limited (at least four times the limit)."""

BoxesOf = Callable[[Tensor, Tensor], Tensor]
"""(proposal numbers (n,), labels (n,)) -> boxes (n,4)."""


class BoxPostProcessor:
    """Threshold, suppression per class and limit over all classes.

    Suppression works on the best candidates alone and widens until the limit is reached: a box can only be
    suppressed by a better one, so the result is the same as with all (proposal, class) pairs, which number
    more than a million per image at 1231 classes without a threshold.
    """

    def __init__(
        self,
        box_coder: BoxCoder,
        *,
        score_thresh: float,
        nms_thresh: float,
        detections_per_img: int,
        class_agnostic: bool = False,
    ) -> None:
        self.box_coder = box_coder
        self.score_thresh = score_thresh
        self.nms_thresh = nms_thresh
        self.detections_per_img = detections_per_img
        self.class_agnostic = class_agnostic

    @classmethod
    def from_cfg(cls, cfg: CfgNode, box_coder: BoxCoder) -> BoxPostProcessor:
        """From MODEL.ROI_HEADS and MODEL.CLS_AGNOSTIC_BBOX_REG."""
        node = cfg.MODEL.ROI_HEADS
        return cls(
            box_coder,
            score_thresh=node.SCORE_THRESH,
            nms_thresh=node.NMS,
            detections_per_img=node.DETECTIONS_PER_IMG,
            class_agnostic=cfg.MODEL.CLS_AGNOSTIC_BBOX_REG,
        )

    @torch.no_grad()
    def __call__(self, logits: Tensor, deltas: Tensor, proposals: Sequence[BoxList]) -> list[BoxList]:
        """Detections per image with fields `scores` float32 and `labels` int64 (1..C).

        logits (N,C) and deltas (N,4C) ((N,8) class-agnostic) of all proposals of the batch. Order: by class,
        then by proposal. At most DETECTIONS_PER_IMG (<= 0: no limit); among equal scores the earlier one
        stays, where the original kept more than the limit. Raises UsageError for non-finite logits or deltas.
        """
        require_finite(logits, "the class logits")
        require_finite(deltas, "the box deltas")
        counts = [len(p) for p in proposals]
        scores = logits.float().softmax(dim=1)
        per_image = zip(scores.split(counts), deltas.split(counts), proposals, strict=True)
        return [
            self.choose(own, partial(self.decode, own_deltas, boxes), boxes.size)
            for own, own_deltas, boxes in per_image
        ]

    def decode(self, deltas: Tensor, proposals: BoxList, row: Tensor, label: Tensor) -> Tensor:
        """Boxes (n,4), clipped to the image, of proposals `row` (n,) for classes `label` (n,)."""
        column = torch.ones_like(label) if self.class_agnostic else label
        chosen = deltas.reshape(len(deltas), deltas.shape[1] // 4, 4)[row, column]
        return clip_boxes(self.box_coder.decode(chosen, proposals.bbox[row]), proposals.size)

    def choose(self, scores: Tensor, boxes_of: BoxesOf, size: tuple[int, int]) -> BoxList:
        """Detections of one image of `size` (width, height) from probabilities (N,C) of N proposals."""
        flat = scores[:, 1:].t().reshape(-1)  # class-major, which is the output order
        total = int((flat > self.score_thresh).sum())
        limit = self.detections_per_img if self.detections_per_img > 0 else total
        take = min(total, max(FIRST_CANDIDATES, 4 * limit))
        while True:
            index = self._best(flat, take, total)
            kept, boxes = self._suppress(index, flat, len(scores), boxes_of)
            if len(kept) >= limit or take >= total:
                break
            take = min(total, take * 4)
        if len(kept) > limit:
            order = flat[kept].argsort(descending=True, stable=True)[:limit].sort().values
            kept, boxes = kept[order], boxes[order]
        result = BoxList(boxes, size, mode="xyxy")
        result.add_field("scores", flat[kept])
        result.add_field("labels", torch.div(kept, max(1, len(scores)), rounding_mode="floor") + 1)
        return result

    def _best(self, flat: Tensor, take: int, total: int) -> Tensor:
        """Ascending indices of scores above the threshold; of the `take` best, with all ties, if fewer."""
        chosen = flat > self.score_thresh
        if take < total:
            chosen &= flat >= flat.topk(take).values[-1]
        return chosen.nonzero().flatten()

    def _suppress(self, index: Tensor, flat: Tensor, count: int, boxes_of: BoxesOf) -> tuple[Tensor, Tensor]:
        """The indices that survive suppression per class, ascending, and their boxes (n,4)."""
        count = max(1, count)
        label, row = torch.div(index, count, rounding_mode="floor") + 1, index % count
        boxes = boxes_of(row, label)
        if self.nms_thresh <= 0:
            return index, boxes
        keep = batched_nms(boxes, flat[index], label, self.nms_thresh)
        return index[keep], boxes[keep]
