"""COCO keypoint protocol: AP with object keypoint similarity (OKS) in the place of IoU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from maskrcnn_benchmark.evaluation.ap import AREA_RANGES, IOU_THRESHOLDS, RECALL_POINTS, APResult
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth, read_ground_truth
from maskrcnn_benchmark.evaluation.matching import accumulate, match_pairs
from maskrcnn_benchmark.evaluation.pairs import pairs_of_listed_categories
from maskrcnn_benchmark.utils.errors import ConfigError, DataError

# parity: limits of pycocotools for keypoints. Small objects have no labelled points.
AREA_NAMES = ("all", "medium", "large")
MAX_DETS = (20,)
# Std of the annotations of COCO's 17 person keypoints, left and right alike, divided by the square root of
# the object's area (pycocotools).
PERSON_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)


def evaluate_keypoints(
    dataset: Mapping[str, Any], detections: Detections, sigmas: Sequence[float] = ()
) -> APResult:
    """Evaluate keypoints by the COCO protocol; the arrays equal those of pycocotools (results without boxes).

    Args:
        dataset: the annotation file as a dict; objects without a labelled keypoint are ignored.
        detections: `keypoints` (D, K, 3) x, y, visibility in pixels; the area of a detection is that of the
            rectangle around them.
        sigmas: K relative stds, one per keypoint; () stands for those of COCO persons.

    Raises ConfigError when `sigmas` and keypoints differ in length, DataError for detections of unknown
    images or without keypoints.
    """
    relative_stds = np.asarray(sigmas or PERSON_SIGMAS, np.float64)
    truth = read_ground_truth(dataset, crowd=True, drop_empty=False)
    points = _truth_points(truth, len(relative_stds))
    if detections.keypoints is None and len(detections):
        raise DataError("keypoint evaluation needs keypoints in every detection")
    if detections.keypoints is not None and detections.keypoints.shape[1] != len(relative_stds):
        raise _wrong_count(detections.keypoints.shape[1], len(relative_stds))
    unlabelled = ~(points[:, :, 2] > 0).any(axis=1)
    truth = replace(truth, ignore=truth.ignore | unlabelled)
    kept, pairs = pairs_of_listed_categories(
        truth,
        detections,
        areas=_areas,
        similarity=partial(pair_oks, sigmas=relative_stds),
        max_per_pair=MAX_DETS[-1],
    )
    matches = match_pairs(pairs, IOU_THRESHOLDS, AREA_RANGES[[0, 2, 3]])
    precision, recall = accumulate(
        pairs,
        matches,
        num_categories=len(truth.category_ids),
        recall_points=RECALL_POINTS,
        max_dets=MAX_DETS,
    )
    return APResult(
        precision,
        recall,
        truth.category_ids,
        protocol="coco",
        iou_type="keypoints",
        area="keypoints",
        num_detections=len(kept),
        limit=str(MAX_DETS[-1]),
        area_names=AREA_NAMES,
        max_dets=MAX_DETS,
    )


def pair_oks(
    truth: GroundTruth,
    detections: Detections,
    det_start: np.ndarray,
    gt_start: np.ndarray,
    sigmas: np.ndarray,
) -> np.ndarray:
    """Compute the object keypoint similarity inside every (image, category) pair.

    det_start, gt_start: int64 (P + 1,), see `pair_ious`. sigmas: float64 (K,).

    Mean over the labelled keypoints of exp(-d^2 / (2 area (2 sigma)^2)). For an object without labelled ones
    d is how far a point lies outside the object's box enlarged by its own size on every side. Returns
    float64, laid out as `ImageCategoryPairs.ious`.
    """
    truth_points = _truth_points(truth, len(sigmas))
    points = detections.keypoints if detections.keypoints is not None else np.zeros((0, len(sigmas), 3))
    variances = (sigmas * 2) ** 2
    # parity: a box of area 0 does not divide by 0
    scales = truth.areas + np.spacing(1)
    parts = []
    for pair in range(len(det_start) - 1):
        pair_points = points[det_start[pair] : det_start[pair + 1], :, :2]
        objects = range(gt_start[pair], gt_start[pair + 1])
        table = np.empty((len(pair_points), len(objects)))
        for column, index in enumerate(objects):
            labelled = truth_points[index, :, 2] > 0
            if labelled.any():
                distance = pair_points - truth_points[index, :, :2]
            else:
                corner, size = truth.boxes[index, :2], truth.boxes[index, 2:]
                before, after = corner - size - pair_points, pair_points - (corner + size * 2)
                distance = np.maximum(0, before) + np.maximum(0, after)
                labelled[:] = True
            squares = distance[..., 0] ** 2 + distance[..., 1] ** 2
            error = (squares / variances / scales[index] / 2)[:, labelled]
            table[:, column] = np.exp(-error).sum(axis=1) / error.shape[1]
        parts.append(table.reshape(-1))
    return np.concatenate(parts) if parts else np.zeros(0)


def _truth_points(truth: GroundTruth, count: int) -> np.ndarray:
    """Keypoints of the annotations, float64 (G, count, 3); zeros for annotations without keypoints."""
    points = np.zeros((len(truth.annotations), count, 3))
    for row, annotation in enumerate(truth.annotations):
        values = annotation.get("keypoints")
        if values is None:
            continue
        if len(values) != 3 * count:
            raise _wrong_count(len(values) / 3, count)
        points[row] = np.asarray(values, np.float64).reshape(count, 3)
    return points


def _wrong_count(actual: float, expected: int) -> ConfigError:
    return ConfigError(
        f"objects have {actual:g} keypoints, but there are {expected} sigmas: set "
        "TEST.KEYPOINT_OKS_SIGMAS to one value per keypoint (empty: the 17 points of COCO persons)"
    )


def _areas(detections: Detections) -> np.ndarray:
    """Area of the rectangle around the keypoints of every detection, float64 (D,) in pixels."""
    if detections.keypoints is None:
        return np.zeros(len(detections))
    corners = detections.keypoints[:, :, :2]
    return np.prod(corners.max(axis=1) - corners.min(axis=1), axis=1)
