"""IoU of detections and ground truth inside each cell, as boxes or as masks."""

from __future__ import annotations

import numpy as np
import torch

from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth
from maskrcnn_benchmark.evaluation.results import Detections
from maskrcnn_benchmark.evaluation.rle import annotation_masks
from maskrcnn_benchmark.layers.library import load_ops
from maskrcnn_benchmark.utils.errors import DataError


def check_masks(truth: GroundTruth, detections: Detections, iou_type: str) -> None:
    """Raise DataError for an unknown `iou_type` and, for "segm", absent masks and masks of another size.

    A mask of another size than its image could never overlap anything. Every image of `detections`
    must be known.
    """
    if iou_type not in ("bbox", "segm"):
        raise DataError(f"iou_type {iou_type!r} is unknown; expected 'bbox' or 'segm'")
    if iou_type == "bbox" or not len(detections):
        return
    if detections.rles is None:
        raise DataError(
            "segm evaluation needs a segmentation in every detection; evaluate 'bbox' or add masks"
        )
    places = np.searchsorted(truth.image_ids, detections.image_ids)
    wrong = (detections.rles.sizes != truth.sizes[places]).any(axis=1)
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(
            f"detections: a mask of image {detections.image_ids[first]} has size "
            f"{detections.rles.sizes[first].tolist()} (height, width), the annotations say "
            f"{truth.sizes[places[first]].tolist()}; encode masks at that size"
        )


def cell_overlaps(
    truth: GroundTruth,
    detections: Detections,
    det_start: np.ndarray,
    gt_start: np.ndarray,
    iou_type: str,
) -> np.ndarray:
    """float64: the (detections, ground truths) matrix of every cell in C order, one after another.

    Both sides are sorted by cell; cell c holds det_start[c]:det_start[c+1] and gt_start[c]:gt_start[c+1].
    Equal to pycocotools.mask.iou to the bit; for a crowd the overlap counts against the detection's area
    alone. Raises DataError for malformed masks; `check_masks` has checked the rest.
    """
    load_ops()
    cells = (torch.from_numpy(truth.crowd), torch.from_numpy(det_start), torch.from_numpy(gt_start))
    if iou_type == "bbox" or detections.rles is None:
        boxes = torch.from_numpy(detections.boxes), torch.from_numpy(truth.boxes)
        return torch.ops.maskrcnn_benchmark.box_iou(*boxes, *cells).numpy()
    right = annotation_masks(truth.annotations, truth.sizes[truth.images])
    ious, bad_detection, bad_truth = torch.ops.maskrcnn_benchmark.mask_iou(
        *detections.rles.tensors(), *right.tensors(), *cells
    )
    if bad_detection >= 0:
        detections.mask_areas()  # raises, with the image and the reason
    if bad_truth >= 0:
        raise DataError(
            f"annotation {truth.annotations[bad_truth].get('id', '?')}: unreadable segmentation "
            f"({right.problem(bad_truth)})"
        )
    return ious.numpy()
