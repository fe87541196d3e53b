"""Average precision by the rules of the Cityscapes instance benchmark (core spec, section 14)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from maskrcnn_benchmark.evaluation.cells import Cells, build_cells, locate
from maskrcnn_benchmark.evaluation.class_ap import ClassAP
from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth, read_ground_truth
from maskrcnn_benchmark.evaluation.overlaps import cell_overlaps, check_masks
from maskrcnn_benchmark.evaluation.results import Detections
from maskrcnn_benchmark.evaluation.rle import annotation_masks

# parity: np.arange, whose .6, .65 and .7 lie a last bit higher than the decimal numbers.
THRESHOLDS = np.arange(0.5, 1.0, 0.05)
MIN_REGION = 100
"""Pixels; smaller objects need not be found."""
_VOID_AREA = -1.0  # stands for the area of void regions, which are no objects


def evaluate_cityscapes(dataset: Mapping[str, Any], detections: Detections, iou_type: str) -> ClassAP:
    """AP of every class at IoU .5 to .95, for masks ("segm") and by the same rules for boxes ("bbox").

    `dataset`: records as `load_cityscapes` makes them: groups are `iscrowd`, images may have a
    `void` mask. An object of MIN_REGION pixels or more is found by every detection of its class whose IoU
    with it is above the threshold; the best score is right, the others are wrong. A detection without such an
    object is wrong, unless its IoU with a group or a small object is above the threshold, or a larger share
    of it than the threshold is void, group or small. Void regions are known to masks alone. All detections
    count, however many.
    Raises DataError for unknown images and absent masks.
    """
    truth = read_ground_truth(dataset, crowd=True, drop_empty=False)
    detections = detections.scored_for(iou_type)
    images, categories = locate(detections, truth)
    check_masks(truth, detections, iou_type)
    by_mask = iou_type == "segm"
    areas = detections.boxes[:, 2] * detections.boxes[:, 3]
    if by_mask and len(detections):
        areas = detections.mask_areas()
    chosen = np.flatnonzero((categories >= 0) & (areas > 0))
    images, categories = images[chosen], categories[chosen]
    truth = replace(truth, areas=_truth_areas(truth, by_mask))
    if by_mask:
        truth = _with_void(truth, dataset, images, categories)
    cells = build_cells(
        truth,
        detections.select(chosen),
        det_images=images,
        det_categories=categories,
        det_areas=areas[chosen],
        forgiven=np.zeros(len(chosen), bool),
        overlaps=partial(cell_overlaps, iou_type=iou_type),
        per_cell_limit=None,
    )
    number = len(truth.category_ids)
    bounds = np.searchsorted(cells.categories, np.arange(number + 1))
    pairs = _pairs(cells, whole_pixels=by_mask)
    ap = np.full((len(THRESHOLDS), number), np.nan)
    for k in range(number):
        first, last = cells.det_start[bounds[k : k + 2]]
        objects = cells.gt_areas[slice(*cells.gt_start[bounds[k : k + 2]])] >= MIN_REGION
        objects &= ~cells.gt_crowd[slice(*cells.gt_start[bounds[k : k + 2]])]
        if not objects.any():
            continue
        own = pairs.of_detections(first, last)
        for row, threshold in enumerate(THRESHOLDS):
            ap[row, k] = _class_ap(cells.scores[first:last], own, int(objects.sum()), threshold)
    area = "mask" if by_mask else "box"
    return ClassAP(ap, THRESHOLDS, truth.category_ids, "cityscapes", iou_type, area, None, len(chosen))


def _truth_areas(truth: GroundTruth, by_mask: bool) -> np.ndarray:
    """float64 (G,): pixels of the masks, or areas of the boxes."""
    if not by_mask:
        return truth.boxes[:, 2] * truth.boxes[:, 3]
    return annotation_masks(truth.annotations, truth.sizes[truth.images]).measure()[0].astype(np.float64)


def _with_void(
    truth: GroundTruth, dataset: Mapping[str, Any], images: np.ndarray, categories: np.ndarray
) -> GroundTruth:
    """`truth` and the void region of every image once per category that was detected there."""
    voids = {image["id"]: image["void"] for image in dataset["images"] if image.get("void")}
    cells = np.unique(np.stack([images, categories], axis=1), axis=0)
    cells = cells[[image in voids for image in truth.image_ids[cells[:, 0]].tolist()]]
    flags = np.ones(len(cells), bool)
    regions = [{"segmentation": voids[image]} for image in truth.image_ids[cells[:, 0]].tolist()]
    return replace(
        truth,
        images=np.append(truth.images, cells[:, 0]),
        categories=np.append(truth.categories, cells[:, 1]),
        boxes=np.append(truth.boxes, np.zeros((len(cells), 4)), axis=0),
        areas=np.append(truth.areas, np.full(len(cells), _VOID_AREA)),
        ignore=np.append(truth.ignore, flags),
        crowd=np.append(truth.crowd, flags),
        annotations=[*truth.annotations, *regions],
    )


@dataclass
class _Pairs:
    """Detections and what they overlap, sorted by detection.

    `detections, objects`: int64 (P,). `ious`: float64 (P,), 0 for void regions. `counted`: bool (P,),
    whether the object is one that should be found. `ignored`: float64 (D,), share of every detection that
    lies on what does not count.
    """

    detections: np.ndarray
    objects: np.ndarray
    ious: np.ndarray
    counted: np.ndarray
    ignored: np.ndarray

    def of_detections(self, first: int, last: int) -> _Pairs:
        """Those of the detections first:last, counted from 0."""
        low, high = np.searchsorted(self.detections, [first, last])
        return _Pairs(
            self.detections[low:high] - first,
            self.objects[low:high],
            self.ious[low:high],
            self.counted[low:high],
            self.ignored[first:last],
        )


def _pairs(cells: Cells, whole_pixels: bool) -> _Pairs:
    """The overlapping pairs of all cells; `whole_pixels`: areas are whole numbers."""
    per_cell, in_cell = np.diff(cells.det_start), np.diff(cells.gt_start)
    width, first = np.repeat(in_cell, per_cell), np.repeat(cells.gt_start[:-1], per_cell)
    rows = np.repeat(np.arange(len(width)), width)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(width) - width, width)
    some = np.flatnonzero(cells.ious > 0)
    rows, objects, overlap = rows[some], (first[rows] + places)[some], cells.ious[some]
    crowd, area, own = cells.gt_crowd[objects], cells.gt_areas[objects], cells.det_areas[rows]
    void = area == _VOID_AREA
    # Overlaps with crowds are shares of the detection, the others are already IoUs.
    shared = np.where(crowd, overlap * own, overlap * (own + area) / (1 + overlap))
    shared = np.rint(shared) if whole_pixels else shared
    ious = np.where(crowd, shared / (own + area - shared), overlap)
    small = (area < MIN_REGION) & ~void
    # parity: a group of fewer pixels than MIN_REGION counts twice.
    weight = shared * (crowd.astype(np.int64) + small)
    ignored = np.bincount(rows, weight, minlength=len(cells.scores)) / cells.det_areas
    return _Pairs(rows, objects, np.where(void, 0.0, ious), ~crowd & ~small, ignored)


def _class_ap(scores: np.ndarray, pairs: _Pairs, objects: int, threshold: float) -> float:
    """AP of one class with `objects` > 0; scores float64 (D,)."""
    near = pairs.ious > threshold
    hits = np.flatnonzero(near & pairs.counted)
    hits = hits[np.lexsort((-scores[pairs.detections[hits]], pairs.objects[hits]))]
    owners = pairs.objects[hits]
    best = np.append(True, owners[1:] != owners[:-1])[: len(hits)]
    astray = np.ones(len(scores), bool)
    astray[pairs.detections[near]] = False
    astray &= pairs.ignored <= threshold
    found = np.concatenate([scores[pairs.detections[hits]], scores[astray]])
    right = np.concatenate([best, np.zeros(int(astray.sum()), bool)])
    return _area_under_curve(found, right, missed=objects - int(best.sum()))


def _area_under_curve(scores: np.ndarray, right: np.ndarray, missed: int) -> float:
    """Precision over recall, a point for every score; each counts for half the distance of its neighbours."""
    if not len(scores):
        return 0.0
    order = np.argsort(scores, kind="stable")
    _, starts = np.unique(scores[order], return_index=True)
    below = np.append(0, np.cumsum(right[order]))[starts]
    hits = right.sum() - below
    precision = np.append(hits / (len(scores) - starts), 1.0)
    recall = np.append(hits / (right.sum() + missed), 0.0)
    padded = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ (padded[:-2] - padded[2:]) / 2)
