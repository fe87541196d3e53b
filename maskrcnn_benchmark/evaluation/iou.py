"""IoU of detections and ground truth of the same image and category, as boxes or as masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth
from maskrcnn_benchmark.evaluation.record_masks import RecordMasks
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.native import load_ops


def comparable(truth: GroundTruth, detections: Detections, iou_type: str) -> Detections:
    """The detections as they can be compared with `truth` by `iou_type`, "bbox" or "segm".

    Polygons among the masks of results become masks of the size of their image. Raises DataError for another
    `iou_type` and, for "segm", when masks are missing or do not have the size of their image. The image of
    every detection must be known (`index_detections`).
    """
    if iou_type not in ("bbox", "segm"):
        raise DataError(f"iou_type {iou_type!r} is unknown; expected 'bbox' or 'segm'")
    if iou_type == "bbox" or not len(detections):
        return detections
    if detections.rles is None:
        raise DataError(
            "segm evaluation needs a segmentation in every detection; evaluate 'bbox' or add masks"
        )
    sizes = truth.sizes[np.searchsorted(truth.image_ids, detections.image_ids)]
    masks = detections.rles.rasterized(sizes)
    wrong = (masks.sizes != sizes).any(axis=1)
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(
            f"detections: a mask of image {detections.image_ids[first]} has size "
            f"{masks.sizes[first].tolist()} (height, width), the annotations say {sizes[first].tolist()}; "
            "encode masks at that size"
        )
    return detections if masks is detections.rles else replace(detections, rles=masks)


def pair_ious(
    truth: GroundTruth,
    detections: Detections,
    det_start: np.ndarray,
    gt_start: np.ndarray,
    iou_type: str,
) -> np.ndarray:
    """Compute the IoU of the detections and the ground truth of every (image, category) pair.

    Both sides are sorted by pair; pair p holds detections det_start[p]:det_start[p+1] and ground truth
    gt_start[p]:gt_start[p+1] (int64 (P + 1,) each). Boxes are x, y, width, height without the +1 of the
    predictions' convention, as in pycocotools. For a crowd the intersection is divided by the area of the
    detection alone.

    Returns float64: the (detections, ground truth) matrices of all pairs in C order, one after another; equal
    to pycocotools.mask.iou to the bit. Raises DataError for malformed masks; `check_masks` has checked the
    rest.
    """
    load_ops()
    layout = (torch.from_numpy(truth.crowd), torch.from_numpy(det_start), torch.from_numpy(gt_start))
    if iou_type == "bbox" or detections.rles is None:
        boxes = torch.from_numpy(detections.boxes), torch.from_numpy(truth.boxes)
        return torch.ops.maskrcnn_benchmark.box_iou(*boxes, *layout).numpy()
    truth_masks = RecordMasks.of(truth.annotations, truth.sizes[truth.images])
    ious, bad_detection, bad_truth = torch.ops.maskrcnn_benchmark.mask_iou(
        *detections.rles.tensors(), *truth_masks.tensors(), *layout
    )
    raise_bad_masks(detections, truth_masks, bad_detection, bad_truth)
    return ious.numpy()


def raise_bad_masks(detections: Detections, truth: RecordMasks, bad_detection: int, bad_truth: int) -> None:
    """Raise DataError for the row of a malformed mask; -1: there is none."""
    if bad_detection >= 0:
        detections.mask_areas()  # raises, with the image and the reason
    if bad_truth >= 0:
        raise truth.unusable(bad_truth)
