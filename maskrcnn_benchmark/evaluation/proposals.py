"""Average recall of class-agnostic proposals (core spec 14; the protocol of Detectron)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from maskrcnn_benchmark.evaluation.ap import IOU_THRESHOLDS
from maskrcnn_benchmark.evaluation.convert import boxlist_to_detections
from maskrcnn_benchmark.evaluation.evaluator import DetectionEvaluator
from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth, positions, read_ground_truth
from maskrcnn_benchmark.evaluation.report import EvaluationReport, TaskReport
from maskrcnn_benchmark.evaluation.results import Detections
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.files import StrPath

TASK = "box_proposal"
LIMITS = (100, 1000)
# parity: areas of the annotations, both ends inclusive.
AREA_RANGES = {"": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}


def average_recall(dataset: Mapping[str, Any], proposals: Detections) -> dict[str, float]:
    """`AR@100, ARs@100, ARm@100, ARl@100` and the same @1000; -1 where no object is of that size.

    Mean over the IoU thresholds 0.5, 0.55, ..., 0.95 of the share of objects (no crowds, all classes alike)
    that a proposal covers. The best proposals of an image up to the limit and its objects are paired one to
    one: in turn the pair with the highest IoU (inclusive boxes, +1) of what is left. An object of an image
    without proposals is missed. Raises DataError for a malformed annotation.
    """
    truth = read_ground_truth(dataset, crowd=True, drop_empty=False)
    truth = truth.select(np.flatnonzero(~truth.crowd))
    settings = {(name, limit): [np.zeros(0)] for limit in LIMITS for name in AREA_RANGES}
    for boxes, objects, areas in _by_image(truth, proposals):
        ious = _ious(boxes[: max(LIMITS)], objects)
        for (name, limit), covered in settings.items():
            low, high = AREA_RANGES[name]
            covered.append(_pair(ious[:limit, (areas >= low) & (areas <= high)]))
    result = {}
    for (name, limit), covered in settings.items():
        best = np.concatenate(covered)
        recall = (best[:, None] >= IOU_THRESHOLDS).mean() if len(best) else -1.0
        result[f"AR{name}@{limit}"] = float(recall)
    return result


def _pair(ious: np.ndarray) -> np.ndarray:
    """float64 (G,): IoU of every object with its proposal, 0 for an object that gets none; ious (P,G)."""
    best = np.zeros(ious.shape[1])
    for step in range(min(ious.shape)):
        row, column = np.unravel_index(_highest(ious), ious.shape)
        best[step] = ious[row, column]
        ious[row, :], ious[:, column] = -1, -1
    return best


def _highest(ious: np.ndarray) -> int:
    """Place of the largest value: of equal ones the first object's, then its best proposal."""
    column = int(ious.max(axis=0).argmax())
    return int(ious[:, column].argmax()) * ious.shape[1] + column


def _by_image(truth: GroundTruth, proposals: Detections) -> Iterator[tuple[np.ndarray, ...]]:
    """(proposals by descending score (P,4), objects (G,4), areas (G,)) of every image with objects."""
    order = np.lexsort((-proposals.scores, proposals.image_ids))
    found = positions(proposals.image_ids[order], truth.image_ids)
    ranked, truth = proposals.boxes[order], truth.select(np.argsort(truth.images, kind="stable"))
    for image in np.unique(truth.images).tolist():
        first, last = np.searchsorted(found, [image, image + 1])
        own = slice(*np.searchsorted(truth.images, [image, image + 1]))
        yield ranked[first:last], truth.boxes[own], truth.areas[own]


def _ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 (N,M) of boxes x, y, width, height; the width counts both border pixels, as in predictions.

    parity: annotations become corners by x + max(width - 1, 0), which are inclusive too.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    b_sides = np.maximum(b[:, 2:] - 1, 0) + 1
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b_sides)
    overlap = np.prod((high - low).clip(min=0), axis=2)
    return overlap / (a[:, 2:].prod(axis=1)[:, None] + b_sides.prod(axis=1) - overlap)


class ProposalEvaluator(DetectionEvaluator):
    """Average recall of proposals (BoxLists with field `objectness`); used like a DetectionEvaluator."""

    def __init__(self, dataset: Mapping[str, Any], *, shard_folder: StrPath | None = None) -> None:
        """`dataset`: the annotation file as a dict. `shard_folder`: see DetectionEvaluator."""
        super().__init__(dataset, "coco", [0, 0], (TASK,), shard_folder=shard_folder)

    def convert(self, prediction: BoxList, image_id: int, size: tuple[int, int]) -> Detections:
        """Proposals at the image's `size` (width, height), category id 0, objectness as score."""
        scored = BoxList(prediction.bbox, prediction.size, prediction.mode)
        scored.add_field("scores", prediction.get_field("objectness"))
        scored.add_field("labels", prediction.get_field("objectness").long().clamp(0, 0))
        return boxlist_to_detections(scored, image_id, size, self.label_to_category)

    def evaluate_detections(self, detections: Detections) -> EvaluationReport:
        """The report for given proposals, without gathering."""
        metrics = average_recall(self.dataset, detections)
        return EvaluationReport(
            protocol=self.protocol,
            num_images=len(self.dataset["images"]),
            tasks={TASK: TaskReport(metrics, groups={}, per_category={}, area="box", result=None)},
            names={},
            detections=detections,
        )
