"""Conversion of predictions to detections: original image size, category ids, RLE masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.rle import RleMasks
from maskrcnn_benchmark.layers.masks import image_masks
from maskrcnn_benchmark.structures.boxlist import BoxList

PIXELS_PER_CHUNK = 64_000_000
"""Pixels of pasted masks in memory at a time."""


def boxlist_to_detections(
    prediction: BoxList,
    image_id: int,
    original_size: tuple[int, int],
    label_to_category: Sequence[int],
    mask_threshold: float = 0.5,
) -> Detections:
    """Convert the prediction for one image to detections at the original size of the image.

    Args:
        prediction: N boxes with fields `scores` (N,) and `labels` (N,); optional `mask`, either (N, 1, M, M)
            probabilities relative to the boxes or (N, 1, H, W) bool of the whole image, best at its
            original size; optional `keypoints`; optional `mask_scores` (N,) for the evaluation of masks.
        image_id: id in the annotation file.
        original_size: (width, height) of the image file.
        label_to_category: category id of every label; entry 0 (background) is not used.
        mask_threshold: a pixel belongs to the object when its probability is larger.

    Boxes become x, y, width, height in pixels with the inclusive width x2 - x1 + 1 (parity).
    """
    if not len(prediction):
        return Detections.empty(with_masks=prediction.has_field("mask"))
    resized = prediction.to("cpu").resize(original_size).convert("xyxy")
    categories = np.asarray(label_to_category, np.int64)[resized.get_field("labels").numpy()]
    rles = None
    if resized.has_field("mask"):
        rles = _encode(resized.get_field("mask"), resized.bbox, original_size, mask_threshold)
    return Detections(
        image_ids=np.full(len(resized), image_id, np.int64),
        category_ids=categories,
        scores=resized.get_field("scores").double().numpy(),
        boxes=resized.convert("xywh").bbox.double().numpy(),
        rles=None if rles is None else RleMasks.from_dicts(rles),
        keypoints=resized.get_field("keypoints").points.numpy() if resized.has_field("keypoints") else None,
        mask_scores=_mask_scores(resized),
    )


def _mask_scores(prediction: BoxList) -> np.ndarray | None:
    if not prediction.has_field("mask_scores"):
        return None
    return prediction.get_field("mask_scores").double().numpy()


def _encode(masks: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float) -> list[dict[str, Any]]:
    """Compressed RLEs at `size` (width, height), a few masks in memory at a time."""
    from pycocotools import mask as mask_utils

    width, height = size
    step = max(1, PIXELS_PER_CHUNK // max(1, width * height))
    rles: list[dict[str, Any]] = []
    for start in range(0, len(masks), step):
        part = image_masks(masks[start : start + step], boxes[start : start + step], height, width, threshold)
        # pycocotools wants (h, w, n) in column-major order: the transposed (n, w, h) in C order.
        columns = part.transpose(1, 2).contiguous().to(torch.uint8).numpy()
        rles += mask_utils.encode(columns.transpose(2, 1, 0))
    return rles
