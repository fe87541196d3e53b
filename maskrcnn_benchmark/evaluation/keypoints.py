"""Average precision of keypoints under the COCO protocol: object keypoint similarity in the place of IoU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from maskrcnn_benchmark.evaluation.accumulate import accumulate
from maskrcnn_benchmark.evaluation.ap import AREA_RANGES, IOU_THRESHOLDS, RECALL_POINTS, APResult
from maskrcnn_benchmark.evaluation.cells import cells_of_known
from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth, read_ground_truth
from maskrcnn_benchmark.evaluation.matching import match_cells
from maskrcnn_benchmark.evaluation.results import Detections
from maskrcnn_benchmark.utils.errors import ConfigError, DataError

# parity: settings of pycocotools for keypoints. Small objects have no labelled points.
AREA_NAMES = ("all", "medium", "large")
MAX_DETS = (20,)
# Deviations of COCO's 17 points of a person, left and right alike, as a share of the root of the area.
PERSON_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)


def evaluate_keypoints(
    dataset: Mapping[str, Any], detections: Detections, sigmas: Sequence[float] = ()
) -> APResult:
    """COCO keypoint protocol, array-equal to pycocotools (results with keypoints and without boxes).

    `dataset`: the annotation file as a dict; objects without a labelled keypoint are neither hit nor miss.
    `sigmas`: one deviation per keypoint, none for those of COCO persons. A detection's area is that of the
    rectangle around its keypoints. Raises ConfigError when the sigmas do not go with the keypoints, DataError
    for detections of unknown images or without keypoints and for annotations whose keypoints differ in
    number.
    """
    deviations = np.asarray(sigmas or PERSON_SIGMAS, np.float64)
    truth = read_ground_truth(dataset, crowd=True, drop_empty=False)
    points = _truth_points(truth, len(deviations))
    if detections.keypoints is None and len(detections):
        raise DataError("keypoint evaluation needs keypoints in every detection")
    if detections.keypoints is not None and detections.keypoints.shape[1] != len(deviations):
        raise _wrong_count(detections.keypoints.shape[1], len(deviations))
    unlabelled = ~(points[:, :, 2] > 0).any(axis=1)
    truth = replace(truth, ignore=truth.ignore | unlabelled)
    kept, cells = cells_of_known(
        truth,
        detections,
        areas=_areas,
        overlaps=partial(keypoint_overlaps, sigmas=deviations),
        per_cell_limit=MAX_DETS[-1],
    )
    matches = match_cells(cells, IOU_THRESHOLDS, AREA_RANGES[[0, 2, 3]])
    precision, recall = accumulate(
        cells,
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


def keypoint_overlaps(
    truth: GroundTruth,
    detections: Detections,
    det_start: np.ndarray,
    gt_start: np.ndarray,
    sigmas: np.ndarray,
) -> np.ndarray:
    """float64: object keypoint similarity in every cell, laid out as `Cells.ious`; sigmas float64 (K,).

    Mean over the labelled keypoints of exp(-d^2 / (2 area (2 sigma)^2)). For an object without labelled ones
    d is how far a point lies outside the object's box enlarged by its own size on every side.
    """
    points = _truth_points(truth, len(sigmas))
    found = detections.keypoints if detections.keypoints is not None else np.zeros((0, len(sigmas), 3))
    variances = (sigmas * 2) ** 2
    # parity: a box of area 0 does not divide by 0
    scales = truth.areas + np.spacing(1)
    parts = []
    for cell in range(len(det_start) - 1):
        own = found[det_start[cell] : det_start[cell + 1], :, :2]
        objects = range(gt_start[cell], gt_start[cell + 1])
        table = np.empty((len(own), len(objects)))
        for column, index in enumerate(objects):
            labelled = points[index, :, 2] > 0
            if labelled.any():
                distance = own - points[index, :, :2]
            else:
                corner, size = truth.boxes[index, :2], truth.boxes[index, 2:]
                distance = np.maximum(0, corner - size - own) + np.maximum(0, own - (corner + size * 2))
                labelled[:] = True
            squares = distance[..., 0] ** 2 + distance[..., 1] ** 2
            error = (squares / variances / scales[index] / 2)[:, labelled]
            table[:, column] = np.exp(-error).sum(axis=1) / error.shape[1]
        parts.append(table.reshape(-1))
    return np.concatenate(parts) if parts else np.zeros(0)


def _truth_points(truth: GroundTruth, count: int) -> np.ndarray:
    """float64 (G, count, 3); zeros for annotations without keypoints."""
    points = np.zeros((len(truth.annotations), count, 3))
    for row, annotation in enumerate(truth.annotations):
        values = annotation.get("keypoints")
        if values is None:
            continue
        if len(values) != 3 * count:
            raise _wrong_count(len(values) / 3, count)
        points[row] = np.asarray(values, np.float64).reshape(count, 3)
    return points


def _wrong_count(found: float, expected: int) -> ConfigError:
    return ConfigError(
        f"objects have {found:g} keypoints, but there are {expected} deviations: set "
        "TEST.KEYPOINT_OKS_SIGMAS to one number per keypoint (empty: the 17 points of COCO persons)"
    )


def _areas(detections: Detections) -> np.ndarray:
    """float64 (D,): area of the rectangle around the keypoints."""
    if detections.keypoints is None:
        return np.zeros(len(detections))
    places = detections.keypoints[:, :, :2]
    return np.prod(places.max(axis=1) - places.min(axis=1), axis=1)
