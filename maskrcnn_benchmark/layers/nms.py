"""NMS in the inclusive pixel convention (width = x2 - x1 + 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.native import load_ops, register_op


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy NMS in descending score order: the indices (K,) int64 of the kept boxes, ascending.

    boxes: (N, 4) xyxy, width x2 - x1 + 1; scores: (N,). A box is dropped when its IoU with a kept box is
    above `iou_threshold` (0 to 1). Of equal scores the lower index comes first; NaN scores count as highest,
    a box with a NaN neither drops another nor is dropped. Half precision is accepted; IoUs are computed in
    float32.
    Raises ValueError (shapes, devices, threshold) and TypeError (dtypes).
    """
    load_ops()
    return torch.ops.maskrcnn_benchmark.nms(boxes, scores, float(iou_threshold))


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Class-wise `nms` in one call: a box competes only with boxes of its own label.

    boxes: (N, 4); scores: (N,); labels: (N,) integers. Returns ascending indices (K,).
    """
    load_ops()
    return torch.ops.maskrcnn_benchmark.batched_nms(boxes, scores, labels, float(iou_threshold))


def boxlist_nms(
    boxlist: BoxList, thresh: float, max_proposals: int = -1, score_field: str = "scores"
) -> BoxList:
    """Apply `nms` to a BoxList; the kept boxes in index order, with their fields and in the same mode.

    thresh <= 0 returns the list unchanged. max_proposals > 0 keeps the first ones of that order: the best
    ones only when the list is sorted by descending score.
    """
    if thresh <= 0:
        return boxlist
    keep = nms(boxlist.convert("xyxy").bbox, boxlist.get_field(score_field), thresh)
    return boxlist[keep[:max_proposals] if max_proposals > 0 else keep]


def _nms_fake(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(),), dtype=torch.int64)


def _batched_nms_fake(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(),), dtype=torch.int64)


register_op("nms", fake=_nms_fake)
register_op("batched_nms", fake=_batched_nms_fake)
