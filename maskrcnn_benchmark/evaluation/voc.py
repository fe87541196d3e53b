"""Average precision of boxes by the rules of Pascal VOC (development kit; core spec, section 14)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from maskrcnn_benchmark.evaluation.ap import IOU_THRESHOLDS
from maskrcnn_benchmark.evaluation.cells import Cells, cells_of_known
from maskrcnn_benchmark.evaluation.class_ap import ClassAP
from maskrcnn_benchmark.evaluation.ground_truth import read_ground_truth
from maskrcnn_benchmark.evaluation.matching import IGNORED, RIGHT, WRONG
from maskrcnn_benchmark.evaluation.overlaps import cell_overlaps
from maskrcnn_benchmark.evaluation.results import Detections
from maskrcnn_benchmark.utils.errors import DataError

# parity: np.arange, so that 0.3, 0.6 and 0.7 lie a last bit higher than the decimal numbers.
RECALL_LEVELS = np.arange(0.0, 1.1, 0.1)
METRICS = ("11point", "area")


def evaluate_voc(dataset: Mapping[str, Any], detections: Detections, *, metric: str = "11point") -> ClassAP:
    """AP of every class at IoU .5 (the benchmark's) and at .55 ... .95.

    `dataset`: records as `load_voc` makes them; difficult objects carry `ignore`. Boxes x, y, width,
    height count both ends, so overlaps are those of corners with 1 added to the far ones. A detection, in
    descending order of scores, goes to the object of its class that it overlaps most: right if that is free
    and the overlap reaches the threshold, wrong if it is taken or the overlap too small, neither if it is
    difficult. `metric`: "11point" means the highest precision at recall 0, .1 ... 1 and above (VOC2007),
    "area" the area under the curve (VOC2010 on). Raises DataError for
    detections of unknown images.
    """
    if metric not in METRICS:
        raise DataError(f"VOC metric {metric!r} is unknown; expected {' or '.join(METRICS)}")
    truth = read_ground_truth(dataset, crowd=False, drop_empty=False)
    kept, cells = cells_of_known(
        truth,
        detections,
        areas=lambda kept: kept.boxes[:, 2] * kept.boxes[:, 3],
        overlaps=partial(cell_overlaps, iou_type="bbox"),
        per_cell_limit=None,
    )
    best_iou, best_truth = best_overlaps(cells)
    number = len(truth.category_ids)
    bounds = np.searchsorted(cells.categories, np.arange(number + 1))
    det_bounds, gt_bounds = cells.det_start[bounds], cells.gt_start[bounds]
    counted = np.append(0, np.cumsum(~cells.gt_ignore))[gt_bounds]
    ap = np.full((len(IOU_THRESHOLDS), number), np.nan)
    for row, threshold in enumerate(IOU_THRESHOLDS):
        outcome = _outcomes(best_iou >= threshold, best_truth, cells.gt_ignore)
        for k in range(number):
            own = slice(det_bounds[k], det_bounds[k + 1])
            objects = int(counted[k + 1] - counted[k])
            if objects:
                ap[row, k] = average_precision(cells.scores[own], outcome[own], objects, metric)
    return ClassAP(ap, IOU_THRESHOLDS, truth.category_ids, "voc", "bbox", "box", 0.5, len(kept))


def best_overlaps(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """float64 (D,) and int64 (D,): highest IoU of every detection and the first object (sorted as in
    `cells`) that has it; -1 and -1 where the cell has no object.
    """
    per_cell, objects = np.diff(cells.det_start), np.diff(cells.gt_start)
    width = np.repeat(objects, per_cell)
    best, place = np.full(len(width), -1.0), np.full(len(width), -1, np.int64)
    rows = np.flatnonzero(width)
    if len(rows):
        starts = np.append(0, np.cumsum(width[rows]))[:-1]
        best[rows] = np.maximum.reduceat(cells.ious, starts)
        hits = np.flatnonzero(cells.ious == np.repeat(best[rows], width[rows]))
        first = hits[np.searchsorted(hits, starts)]
        place[rows] = np.repeat(cells.gt_start[:-1], per_cell)[rows] + first - starts
    return best, place


def _outcomes(near: np.ndarray, best_truth: np.ndarray, difficult: np.ndarray) -> np.ndarray:
    """uint8 (D,): RIGHT, WRONG or IGNORED; of the detections `near` the same object the first is right."""
    outcome = np.full(len(near), WRONG, np.uint8)
    rows = np.flatnonzero(near)
    _, first = np.unique(best_truth[rows], return_index=True)
    outcome[rows[first]] = RIGHT
    outcome[rows[difficult[best_truth[rows]]]] = IGNORED
    return outcome


def average_precision(scores: np.ndarray, outcome: np.ndarray, objects: int, metric: str) -> float:
    """AP of one class with `objects` > 0 that count; scores float64 (D,), outcome uint8 (D,)."""
    outcome = outcome[np.argsort(-scores, kind="stable")]
    right, wrong = np.cumsum(outcome == RIGHT), np.cumsum(outcome == WRONG)
    precision = right / np.maximum(right + wrong, 1)
    recall = right / objects
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if metric == "11point":
        places = np.searchsorted(recall, RECALL_LEVELS)
        return float(np.append(envelope, 0.0)[places].sum() / len(RECALL_LEVELS))
    return float((np.diff(recall, prepend=0.0) * envelope).sum())
