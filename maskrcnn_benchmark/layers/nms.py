"""Non-maximum suppression in the inclusive pixel convention (core spec 16)."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.layers._ops import load_ops
from maskrcnn_benchmark.structures.boxlist import BoxList


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices (K,) int64, ascending, of the boxes that greedy suppression by falling score keeps.

    boxes: (N,4) xyxy, width x2 - x1 + 1; scores: (N,). A box goes when its IoU with a kept box is above
    `iou_threshold` (0 to 1). Of equal scores the lower index wins; NaN scores count as highest, boxes with a
    NaN neither suppress nor are suppressed. Half precision is taken; overlaps are computed in float32.
    Raises ValueError (shapes, devices, threshold) and TypeError (dtypes).
    """
    load_ops()
    return torch.ops.maskrcnn_benchmark.nms(boxes, scores, float(iou_threshold))


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """`nms` within each class in one call: boxes of different `labels` ((N,) integers) do not meet."""
    load_ops()
    return torch.ops.maskrcnn_benchmark.batched_nms(boxes, scores, labels, float(iou_threshold))


def boxlist_nms(
    boxlist: BoxList, thresh: float, max_proposals: int = -1, score_field: str = "scores"
) -> BoxList:
    """The boxes of `boxlist` that `nms` keeps, in index order, with their fields and in the same mode.

    thresh <= 0 returns the list unchanged. max_proposals > 0 keeps the first ones of that order: the best
    ones only when the list is sorted by falling score.
    """
    if thresh <= 0:
        return boxlist
    keep = nms(boxlist.convert("xyxy").bbox, boxlist.get_field(score_field), thresh)
    return boxlist[keep[:max_proposals] if max_proposals > 0 else keep]
