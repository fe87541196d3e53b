"""Average recall of class-agnostic proposals, as Detectron computes it (Hosang et al. 2015)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskrcnn_benchmark.evaluation.ap import IOU_THRESHOLDS
from maskrcnn_benchmark.evaluation.base import EVALUATORS, DetectionEvaluator
from maskrcnn_benchmark.evaluation.convert import boxlist_to_detections
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth, indices_in, read_ground_truth
from maskrcnn_benchmark.evaluation.report import EvaluationReport, TaskReport, write_report
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.files import StrPath, atomic_path

TASK = "box_proposal"
LIMITS = (100, 1000)
"""Numbers of best proposals of an image that count."""
# parity: areas of the annotations in pixels, both ends inclusive.
AREA_RANGES = {"": (0.0, 1e10), "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}


def average_recall(dataset: Mapping[str, Any], proposals: Detections) -> dict[str, float]:
    """Average recall `AR@100, ARs@100, ARm@100, ARl@100` and the same @1000; -1 without objects of the size.

    dataset: the annotation file as a dict. proposals: boxes x, y, width, height in pixels, widths inclusive.

    Mean over the IoU thresholds 0.5, 0.55, ..., 0.95 of the fraction of objects (no crowds, all classes
    alike) that a proposal covers. The best proposals of an image up to the limit and its objects are paired
    one to one, greedily in descending order of IoU (inclusive boxes, +1). An object of an image without
    proposals is missed. Raises DataError for a malformed annotation.
    """
    truth = read_ground_truth(dataset, crowd=True, drop_empty=False)
    truth = truth.select(np.flatnonzero(~truth.crowd))
    best_ious = {(name, limit): [np.zeros(0)] for limit in LIMITS for name in AREA_RANGES}
    for boxes, objects, areas in _by_image(truth, proposals):
        ious = _inclusive_ious(boxes[: max(LIMITS)], objects)
        for (name, limit), parts in best_ious.items():
            low, high = AREA_RANGES[name]
            parts.append(_pair_greedily(ious[:limit, (areas >= low) & (areas <= high)]))
    metrics = {}
    for (name, limit), parts in best_ious.items():
        best = np.concatenate(parts)
        recall = (best[:, None] >= IOU_THRESHOLDS).mean() if len(best) else -1.0
        metrics[f"AR{name}@{limit}"] = float(recall)
    return metrics


def _pair_greedily(ious: np.ndarray) -> np.ndarray:
    """IoU of every object with its proposal, float64 (G,), 0 for an object without; changes ious (P, G)."""
    best = np.zeros(ious.shape[1])
    for step in range(min(ious.shape)):
        row, column = np.unravel_index(_argmax(ious), ious.shape)
        best[step] = ious[row, column]
        ious[row, :], ious[:, column] = -1, -1
    return best


def _argmax(ious: np.ndarray) -> int:
    """Flat index of the largest value; of equal ones that of the first object, then of its best proposal."""
    column = int(ious.max(axis=0).argmax())
    return int(ious[:, column].argmax()) * ious.shape[1] + column


def _by_image(truth: GroundTruth, proposals: Detections) -> Iterator[tuple[np.ndarray, ...]]:
    """(proposals by descending score (P, 4), objects (G, 4), areas (G,)) of every image with objects."""
    order = np.lexsort((-proposals.scores, proposals.image_ids))
    images = indices_in(truth.image_ids, proposals.image_ids[order])
    ranked, truth = proposals.boxes[order], truth.select(np.argsort(truth.images, kind="stable"))
    for image in np.unique(truth.images).tolist():
        first, last = np.searchsorted(images, [image, image + 1])
        objects = slice(*np.searchsorted(truth.images, [image, image + 1]))
        yield ranked[first:last], truth.boxes[objects], truth.areas[objects]


def _inclusive_ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU float64 (N, M) of boxes x, y, width, height whose width counts both border pixels.

    parity: annotations `b` become corners by x + max(width - 1, 0), which are inclusive too.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    b_sides = np.maximum(b[:, 2:] - 1, 0) + 1
    high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b_sides)
    intersection = np.prod((high - low).clip(min=0), axis=2)
    return intersection / (a[:, 2:].prod(axis=1)[:, None] + b_sides.prod(axis=1) - intersection)


@EVALUATORS.register("proposals")
class ProposalEvaluator(DetectionEvaluator):
    """Average recall of proposals: BoxLists with the field `objectness` (N,), classes play no role."""

    protocol = "coco"
    supported_tasks = (TASK,)

    def __init__(
        self,
        dataset: Mapping[str, Any],
        label_to_category: Sequence[int] = (),
        tasks: Sequence[str] = (TASK,),
        *,
        groups: Mapping[str, Sequence[int]] | None = None,
        shard_folder: StrPath | None = None,
    ) -> None:
        super().__init__(dataset, label_to_category, tasks, groups=groups, shard_folder=shard_folder)

    def convert(self, prediction: BoxList, image_id: int, size: tuple[int, int]) -> Detections:
        """Convert proposals to detections of category id 0 at `size` (width, height), objectness as score."""
        scored = BoxList(prediction.bbox, prediction.size, prediction.mode)
        scored.add_field("scores", prediction.get_field("objectness"))
        scored.add_field("labels", prediction.get_field("objectness").long().clamp(0, 0))
        return boxlist_to_detections(scored, image_id, size, label_to_category=[0])

    def evaluate_detections(self, detections: Detections) -> EvaluationReport:
        """Evaluate given proposals, without gathering; the report names no classes."""
        return replace(super().evaluate_detections(detections), names={})

    def evaluate_task(self, detections: Detections, task: str) -> TaskReport:
        """Average recall of the proposals."""
        metrics = average_recall(self.dataset, detections)
        return TaskReport(metrics, groups={}, per_category={}, area="box", result=None)

    def write(self, report: EvaluationReport, folder: StrPath) -> None:
        """Write metrics, and all proposals as `box_proposals.pth`.

        The torch file holds the tensors `image_ids` int64 (D,), `boxes` float64 (D, 4) as x, y, width, height
        in pixels of the original images, and `objectness` float64 (D,).
        """
        write_report(report, folder)
        proposals = report.detections
        arrays = {
            "image_ids": proposals.image_ids,
            "boxes": proposals.boxes,
            "objectness": proposals.scores,
        }
        content = io.BytesIO()
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, content)
        with atomic_path(Path(folder) / "box_proposals.pth") as path:
            path.write_bytes(content.getbuffer())
