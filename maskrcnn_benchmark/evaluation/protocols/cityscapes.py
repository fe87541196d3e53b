"""Cityscapes protocol (cityscapesScripts, evalInstanceLevelSemanticLabeling): AP of masks, and of boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from maskrcnn_benchmark.evaluation.ap import ClassAP
from maskrcnn_benchmark.evaluation.base import EVALUATORS, DetectionEvaluator
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth, read_ground_truth
from maskrcnn_benchmark.evaluation.iou import comparable, pair_ious
from maskrcnn_benchmark.evaluation.pairs import ImageCategoryPairs, build_pairs, index_detections
from maskrcnn_benchmark.evaluation.record_masks import RecordMasks
from maskrcnn_benchmark.evaluation.report import TaskReport

# parity: np.arange, whose .6, .65 and .7 lie a last bit higher than the decimal numbers.
THRESHOLDS = np.arange(0.5, 1.0, 0.05)
MIN_REGION = 100
"""Pixels; smaller objects need not be found."""
_VOID_AREA = -1.0  # marks void regions, which are no objects


def evaluate_cityscapes(dataset: Mapping[str, Any], detections: Detections, iou_type: str) -> ClassAP:
    """AP of every class at IoU .5 to .95, for masks ("segm") and by the same rules for boxes ("bbox").

    dataset: records as `load_cityscapes` makes them: groups are `iscrowd`, images may have a `void` mask.
    detections: boxes x, y, width, height in pixels of the image.

    An object of MIN_REGION pixels or more matches every detection of its class whose IoU with it is above the
    threshold; the best-scored one is a true positive, the others are false positives. A detection without
    such an object is a false positive, unless its IoU with a group or a small object is above the threshold,
    or a larger fraction of it than the threshold is void, group or small. Void regions exist for masks alone.
    All detections count, without a limit per image. Raises DataError for unknown images and missing masks.
    """
    truth = read_ground_truth(dataset, crowd=True, drop_empty=False)
    detections = detections.scored_for(iou_type)
    images, categories = index_detections(detections, truth)
    detections = comparable(truth, detections, iou_type)
    by_mask = iou_type == "segm"
    area = "mask" if by_mask else "box"
    areas = detections.areas(iou_type, area)
    counted = np.flatnonzero((categories >= 0) & (areas > 0))
    images, categories = images[counted], categories[counted]
    truth = replace(truth, areas=_truth_areas(truth, by_mask))
    if by_mask:
        truth = _with_void(truth, dataset, images, categories)
    pairs = build_pairs(
        truth,
        detections.select(counted),
        det_images=images,
        det_categories=categories,
        det_areas=areas[counted],
        ignore_unmatched=np.zeros(len(counted), bool),
        similarity=partial(pair_ious, iou_type=iou_type),
        max_per_pair=None,
    )
    ap = _ap_per_class(pairs, len(truth.category_ids), whole_pixels=by_mask)
    return ClassAP(ap, THRESHOLDS, truth.category_ids, "cityscapes", iou_type, area, None, len(counted))


def _ap_per_class(pairs: ImageCategoryPairs, num_classes: int, whole_pixels: bool) -> np.ndarray:
    """AP of every threshold and class, float64 (T, K); NaN for classes without an object that counts."""
    bounds = np.searchsorted(pairs.categories, np.arange(num_classes + 1))
    intersections = _intersections(pairs, whole_pixels)
    ap = np.full((len(THRESHOLDS), num_classes), np.nan)
    for k in range(num_classes):
        first, last = pairs.det_start[bounds[k : k + 2]]
        objects = pairs.gt_areas[slice(*pairs.gt_start[bounds[k : k + 2]])] >= MIN_REGION
        objects &= ~pairs.gt_crowd[slice(*pairs.gt_start[bounds[k : k + 2]])]
        if not objects.any():
            continue
        of_class = intersections.of_detections(first, last)
        for row, threshold in enumerate(THRESHOLDS):
            ap[row, k] = _class_ap(pairs.scores[first:last], of_class, int(objects.sum()), threshold)
    return ap


def _truth_areas(truth: GroundTruth, by_mask: bool) -> np.ndarray:
    """Pixels of the masks, or areas of the boxes, float64 (G,)."""
    if not by_mask:
        return truth.boxes[:, 2] * truth.boxes[:, 3]
    masks = RecordMasks.of(truth.annotations, truth.sizes[truth.images]).encode()
    return masks.measure()[0].astype(np.float64)


def _with_void(
    truth: GroundTruth, dataset: Mapping[str, Any], images: np.ndarray, categories: np.ndarray
) -> GroundTruth:
    """Append the void region of every image to `truth`, once per category that was detected there.

    images, categories: int64 (D,), indices into the tables of `truth`.
    """
    voids = {image["id"]: image["void"] for image in dataset["images"] if image.get("void")}
    pairs = np.unique(np.stack([images, categories], axis=1), axis=0)
    pairs = pairs[[image in voids for image in truth.image_ids[pairs[:, 0]].tolist()]]
    flags = np.ones(len(pairs), bool)
    regions = [{"segmentation": voids[image]} for image in truth.image_ids[pairs[:, 0]].tolist()]
    return replace(
        truth,
        images=np.append(truth.images, pairs[:, 0]),
        categories=np.append(truth.categories, pairs[:, 1]),
        boxes=np.append(truth.boxes, np.zeros((len(pairs), 4)), axis=0),
        areas=np.append(truth.areas, np.full(len(pairs), _VOID_AREA)),
        ignore=np.append(truth.ignore, flags),
        crowd=np.append(truth.crowd, flags),
        annotations=[*truth.annotations, *regions],
    )


@dataclass
class _Intersections:
    """Detections and the objects of their image and class that they intersect, sorted by detection.

    `detections, objects`: int64 (N,). `ious`: float64 (N,), 0 for void regions. `counted`: bool (N,),
    whether the object is one that should be found. `ignored`: float64 (D,), fraction of every detection that
    lies on void, groups and small objects.
    """

    detections: np.ndarray
    objects: np.ndarray
    ious: np.ndarray
    counted: np.ndarray
    ignored: np.ndarray

    def of_detections(self, first: int, last: int) -> _Intersections:
        """Those of the detections first:last, which are counted from 0."""
        low, high = np.searchsorted(self.detections, [first, last])
        return _Intersections(
            self.detections[low:high] - first,
            self.objects[low:high],
            self.ious[low:high],
            self.counted[low:high],
            self.ignored[first:last],
        )


def _intersections(pairs: ImageCategoryPairs, whole_pixels: bool) -> _Intersections:
    """All intersections of detections and objects; `whole_pixels`: areas are whole numbers."""
    num_dets, num_objects = np.diff(pairs.det_start), np.diff(pairs.gt_start)
    width, first = np.repeat(num_objects, num_dets), np.repeat(pairs.gt_start[:-1], num_dets)
    rows = np.repeat(np.arange(len(width)), width)
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(width) - width, width)
    some = np.flatnonzero(pairs.ious > 0)
    rows, objects, iou = rows[some], (first[rows] + columns)[some], pairs.ious[some]
    crowd, area, det_area = pairs.gt_crowd[objects], pairs.gt_areas[objects], pairs.det_areas[rows]
    void = area == _VOID_AREA
    # `iou` of a crowd is the intersection divided by the area of the detection, see `pair_ious`
    intersection = np.where(crowd, iou * det_area, iou * (det_area + area) / (1 + iou))
    intersection = np.rint(intersection) if whole_pixels else intersection
    iou = np.where(crowd, intersection / (det_area + area - intersection), iou)
    small = (area < MIN_REGION) & ~void
    # parity: a group of fewer pixels than MIN_REGION counts twice.
    weight = intersection * (crowd.astype(np.int64) + small)
    ignored = np.bincount(rows, weight, minlength=len(pairs.scores)) / pairs.det_areas
    return _Intersections(rows, objects, np.where(void, 0.0, iou), ~crowd & ~small, ignored)


def _class_ap(scores: np.ndarray, intersections: _Intersections, num_objects: int, threshold: float) -> float:
    """AP of one class with `num_objects` > 0; scores float64 (D,)."""
    near = intersections.ious > threshold
    hits = np.flatnonzero(near & intersections.counted)
    hit_scores = scores[intersections.detections[hits]]
    order = np.lexsort((-hit_scores, intersections.objects[hits]))
    hits, hit_scores = hits[order], hit_scores[order]
    owners = intersections.objects[hits]
    best = np.append(True, owners[1:] != owners[:-1])[: len(hits)]
    unmatched = np.ones(len(scores), bool)
    unmatched[intersections.detections[near]] = False
    unmatched &= intersections.ignored <= threshold
    counted = np.concatenate([hit_scores, scores[unmatched]])
    is_right = np.concatenate([best, np.zeros(int(unmatched.sum()), bool)])
    return _area_under_curve(counted, is_right, missed=num_objects - int(best.sum()))


def _area_under_curve(scores: np.ndarray, is_right: np.ndarray, missed: int) -> float:
    """Area under precision over recall with a point for every score.

    Each point counts for half the distance of its neighbours. scores float64 (N,), is_right bool (N,);
    missed: number of objects without a true positive.
    """
    if not len(scores):
        return 0.0
    order = np.argsort(scores, kind="stable")
    _, starts = np.unique(scores[order], return_index=True)
    below = np.append(0, np.cumsum(is_right[order]))[starts]
    hits = is_right.sum() - below
    precision = np.append(hits / (len(scores) - starts), 1.0)
    recall = np.append(hits / (is_right.sum() + missed), 0.0)
    padded = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ (padded[:-2] - padded[2:]) / 2)


@EVALUATORS.register("cityscapes")
class CityscapesEvaluator(DetectionEvaluator):
    """Box and mask AP by the Cityscapes protocol."""

    protocol = "cityscapes"
    supported_tasks = ("bbox", "segm")

    def evaluate_task(self, detections: Detections, task: str) -> TaskReport:
        """AP of one task."""
        return self.ap_report(evaluate_cityscapes(self.dataset, detections, task))
