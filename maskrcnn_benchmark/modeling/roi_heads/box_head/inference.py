"""Detections from class logits and box deltas (Fast R-CNN, Girshick 2015, section 3)."""

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

INITIAL_CANDIDATES = 1000
"""Candidates of the first NMS when detections are limited (at least four times the limit)."""

DecodeBoxes = Callable[[Tensor, Tensor], Tensor]
"""Proposal indices (n,) and labels (n,) -> xyxy boxes (n, 4)."""


class BoxPostProcessor:
    """Score threshold, NMS per class, and top-k over all classes.

    NMS runs on the candidates of highest score and widens until the limit is reached. A box is only removed
    by one of higher score, so the result is the same as with all (proposal, class) pairs, of which there are
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
        """Build from MODEL.ROI_HEADS and MODEL.CLS_AGNOSTIC_BBOX_REG."""
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
        """Return detections per image with fields `scores` float32 (n,) and `labels` int64 (n,) in 1..C-1.

        logits (N, C) and deltas (N, 4C) ((N, 8) class-agnostic) of all proposals of the batch. Order: by
        class, then by proposal. At most DETECTIONS_PER_IMG (<= 0: no limit); among equal scores the earlier
        one stays, where the published code keeps more than the limit. Raises UsageError for non-finite logits
        or deltas.
        """
        require_finite(logits, "the class logits")
        require_finite(deltas, "the box deltas")
        counts = [len(p) for p in proposals]
        scores = logits.float().softmax(dim=1)
        per_image = zip(scores.split(counts), deltas.split(counts), proposals, strict=True)
        return [
            self.filter_results(image_scores, partial(self.decode, image_deltas, boxes), boxes.size)
            for image_scores, image_deltas, boxes in per_image
        ]

    def decode(self, deltas: Tensor, proposals: BoxList, index: Tensor, label: Tensor) -> Tensor:
        """Decode and clip boxes (n, 4) of proposals `index` (n,) for classes `label` (n,).

        deltas: (N, 4C), or (N, 8) class-agnostic, of all proposals of the image.
        """
        group = torch.ones_like(label) if self.class_agnostic else label
        class_deltas = deltas.reshape(len(deltas), deltas.shape[1] // 4, 4)[index, group]
        return clip_boxes(self.box_coder.decode(class_deltas, proposals.bbox[index]), proposals.size)

    def filter_results(self, scores: Tensor, decode: DecodeBoxes, size: tuple[int, int]) -> BoxList:
        """Return the detections of one image of `size` (width, height) from probabilities (N, C)."""
        flat = scores[:, 1:].t().reshape(-1)  # class-major, which is the output order
        total = int((flat > self.score_thresh).sum())
        limit = self.detections_per_img if self.detections_per_img > 0 else total
        count = min(total, max(INITIAL_CANDIDATES, 4 * limit))
        while True:
            index = self._top_candidates(flat, count, total)
            kept, boxes = self._nms(index, flat, len(scores), decode)
            if len(kept) >= limit or count >= total:
                break
            count = min(total, count * 4)
        if len(kept) > limit:
            order = flat[kept].argsort(descending=True, stable=True)[:limit].sort().values
            kept, boxes = kept[order], boxes[order]
        result = BoxList(boxes, size, mode="xyxy")
        result.add_field("scores", flat[kept])
        result.add_field("labels", torch.div(kept, max(1, len(scores)), rounding_mode="floor") + 1)
        return result

    def _top_candidates(self, flat: Tensor, count: int, total: int) -> Tensor:
        """Ascending indices of scores (M,) above the threshold, of the top `count` with all ties if fewer."""
        keep = flat > self.score_thresh
        if count < total:
            keep &= flat >= flat.topk(count).values[-1]
        return keep.nonzero().flatten()

    def _nms(
        self, index: Tensor, flat: Tensor, num_proposals: int, decode: DecodeBoxes
    ) -> tuple[Tensor, Tensor]:
        """Return the candidates `index` (M,) kept by NMS per class, ascending, and their boxes (n, 4)."""
        num_proposals = max(1, num_proposals)
        label, proposal = torch.div(index, num_proposals, rounding_mode="floor") + 1, index % num_proposals
        boxes = decode(proposal, label)
        if self.nms_thresh <= 0:
            return index, boxes
        keep = batched_nms(boxes, flat[index], label, self.nms_thresh)
        return index[keep], boxes[keep]
