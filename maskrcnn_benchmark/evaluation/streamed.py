"""Precision and recall of boxes and masks category by category: nothing per pair is kept (native code)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from maskrcnn_benchmark.evaluation.ap import AREA_RANGES, IOU_THRESHOLDS, RECALL_POINTS
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth
from maskrcnn_benchmark.evaluation.iou import raise_bad_masks
from maskrcnn_benchmark.evaluation.pairs import PairLayout
from maskrcnn_benchmark.evaluation.record_masks import RecordMasks
from maskrcnn_benchmark.utils.native import load_ops


def streamed_precision(
    truth: GroundTruth,
    detections: Detections,
    layout: PairLayout,
    iou_type: str,
    *,
    det_areas: np.ndarray,
    ignore_unmatched: np.ndarray | None = None,
    max_dets: Sequence[int | None],
) -> tuple[np.ndarray, np.ndarray]:
    """IoU (`pair_ious`), matches (`match_pairs`) and curves (`accumulate`), one category after another.

    Equal to those three to the bit; T, R and A are those of COCO. A mask of the ground truth is rasterised
    when there are detections in its pair. Threads take whole categories; the result does not depend on their
    number.

    Args:
        det_areas: float64 (D,), in pixels. ignore_unmatched: bool (D,), None for none; see
            `ImageCategoryPairs`. max_dets: see `accumulate`.

    Returns precision float64 (T, R, K, A, M) and recall float64 (T, K, A, M). Raises DataError for malformed
    masks.
    """
    load_ops()
    ops = torch.ops.maskrcnn_benchmark
    starts = layout.category_starts(len(truth.category_ids))
    if ignore_unmatched is None:
        ignore_unmatched = np.zeros(len(detections), bool)
    rest = (
        _tensors(layout.det_order, layout.gt_order, layout.det_start, layout.gt_start, starts),
        _tensors(detections.scores, det_areas, ignore_unmatched),
        _tensors(truth.areas, truth.ignore, truth.crowd),
        _tensors(IOU_THRESHOLDS, AREA_RANGES, RECALL_POINTS),
        [np.iinfo(np.int64).max if limit is None else limit for limit in max_dets],
    )
    if iou_type == "bbox" or detections.rles is None:
        precision, recall = ops.box_precision(*_tensors(detections.boxes, truth.boxes), *rest)
        return precision.numpy(), recall.numpy()
    masks = RecordMasks.of(truth.annotations, truth.sizes[truth.images])
    precision, recall, bad_detection, bad_truth = ops.mask_precision(
        *detections.rles.tensors(), *masks.tensors(), *rest
    )
    raise_bad_masks(detections, masks, bad_detection, bad_truth)
    return precision.numpy(), recall.numpy()


def _tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
