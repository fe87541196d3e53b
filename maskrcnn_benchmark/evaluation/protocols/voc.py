"""Pascal VOC protocol (Everingham et al. 2010, and the development kit): AP of boxes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from yacs.config import CfgNode

from maskrcnn_benchmark.evaluation.ap import IOU_THRESHOLDS, ClassAP
from maskrcnn_benchmark.evaluation.base import EVALUATORS, DetectionEvaluator
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.ground_truth import read_ground_truth
from maskrcnn_benchmark.evaluation.iou import pair_ious
from maskrcnn_benchmark.evaluation.matching import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE
from maskrcnn_benchmark.evaluation.pairs import ImageCategoryPairs, pairs_of_listed_categories
from maskrcnn_benchmark.evaluation.report import EvaluationReport, TaskReport
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import StrPath, write_text

# parity: np.arange, so that 0.3, 0.6 and 0.7 lie a last bit higher than the decimal numbers.
RECALL_LEVELS = np.arange(0.0, 1.1, 0.1)
METRICS = ("11point", "area")


def evaluate_voc(dataset: Mapping[str, Any], detections: Detections, *, metric: str = "11point") -> ClassAP:
    """AP of every class at IoU .5 (the benchmark's) and at .55 ... .95.

    Args:
        dataset: records as `load_voc` makes them; difficult objects carry `ignore`.
        detections: boxes x, y, width, height in pixels; widths count both border pixels, so IoUs are those of
            corners with 1 added to the far ones.
        metric: "11point" averages the highest precision at recall 0, .1 ... 1 and above (VOC2007), "area" is
            the area under the curve (VOC2010 on).

    A detection, in descending order of scores, goes to the object of its class with the highest IoU. It is a
    true positive if the IoU reaches the threshold and the object is free, a false positive if the object is
    taken or the IoU too small, and ignored if the object is difficult. Raises DataError for detections of
    unknown images and for another `metric`.
    """
    if metric not in METRICS:
        raise DataError(f"VOC metric {metric!r} is unknown; expected {' or '.join(METRICS)}")
    truth = read_ground_truth(dataset, crowd=False, drop_empty=False)
    kept, pairs = pairs_of_listed_categories(
        truth,
        detections,
        areas=lambda kept: kept.areas("bbox", "box"),
        similarity=partial(pair_ious, iou_type="bbox"),
        max_per_pair=None,
    )
    best_iou, best_truth = best_matches(pairs)
    num_classes = len(truth.category_ids)
    bounds = np.searchsorted(pairs.categories, np.arange(num_classes + 1))
    det_bounds, gt_bounds = pairs.det_start[bounds], pairs.gt_start[bounds]
    counted = np.append(0, np.cumsum(~pairs.gt_ignore))[gt_bounds]
    ap = np.full((len(IOU_THRESHOLDS), num_classes), np.nan)
    for row, threshold in enumerate(IOU_THRESHOLDS):
        outcome = _outcomes(best_iou >= threshold, best_truth, pairs.gt_ignore)
        for k in range(num_classes):
            of_class = slice(det_bounds[k], det_bounds[k + 1])
            num_objects = int(counted[k + 1] - counted[k])
            if num_objects:
                ap[row, k] = average_precision(pairs.scores[of_class], outcome[of_class], num_objects, metric)
    return ClassAP(ap, IOU_THRESHOLDS, truth.category_ids, "voc", "bbox", "box", 0.5, len(kept))


def best_matches(pairs: ImageCategoryPairs) -> tuple[np.ndarray, np.ndarray]:
    """Find the object of the highest IoU for every detection, thresholds aside.

    Returns that IoU, float64 (D,), and the index of the first object (sorted as in `pairs`) that has it,
    int64 (D,); -1 and -1 where the pair has no object.
    """
    num_dets, num_objects = np.diff(pairs.det_start), np.diff(pairs.gt_start)
    width = np.repeat(num_objects, num_dets)
    best, index = np.full(len(width), -1.0), np.full(len(width), -1, np.int64)
    rows = np.flatnonzero(width)
    if len(rows):
        starts = np.append(0, np.cumsum(width[rows]))[:-1]
        best[rows] = np.maximum.reduceat(pairs.ious, starts)
        hits = np.flatnonzero(pairs.ious == np.repeat(best[rows], width[rows]))
        first = hits[np.searchsorted(hits, starts)]
        index[rows] = np.repeat(pairs.gt_start[:-1], num_dets)[rows] + first - starts
    return best, index


def _outcomes(near: np.ndarray, best_truth: np.ndarray, difficult: np.ndarray) -> np.ndarray:
    """Outcome of every detection, uint8 (D,); of those `near` one object the first is a true positive."""
    outcome = np.full(len(near), FALSE_POSITIVE, np.uint8)
    rows = np.flatnonzero(near)
    _, first = np.unique(best_truth[rows], return_index=True)
    outcome[rows[first]] = TRUE_POSITIVE
    outcome[rows[difficult[best_truth[rows]]]] = IGNORED
    return outcome


def average_precision(scores: np.ndarray, outcome: np.ndarray, num_objects: int, metric: str) -> float:
    """AP of one class with `num_objects` > 0 that count; scores float64 (D,), outcome uint8 (D,)."""
    outcome = outcome[np.argsort(-scores, kind="stable")]
    hits, misses = np.cumsum(outcome == TRUE_POSITIVE), np.cumsum(outcome == FALSE_POSITIVE)
    precision = hits / np.maximum(hits + misses, 1)
    recall = hits / num_objects
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if metric == "11point":
        indices = np.searchsorted(recall, RECALL_LEVELS)
        return float(np.append(envelope, 0.0)[indices].sum() / len(RECALL_LEVELS))
    return float((np.diff(recall, prepend=0.0) * envelope).sum())


@EVALUATORS.register("voc")
class VocEvaluator(DetectionEvaluator):
    """Box AP by the Pascal VOC protocol; `metric`: see `evaluate_voc`."""

    protocol = "voc"
    supported_tasks = ("bbox",)

    def __init__(
        self,
        dataset: Mapping[str, Any],
        label_to_category: Sequence[int],
        tasks: Sequence[str] = ("bbox",),
        *,
        groups: Mapping[str, Sequence[int]] | None = None,
        shard_folder: StrPath | None = None,
        metric: str = "11point",
    ) -> None:
        super().__init__(dataset, label_to_category, tasks, groups=groups, shard_folder=shard_folder)
        self.metric = metric

    @staticmethod
    def options_from_cfg(cfg: CfgNode) -> dict[str, Any]:
        """The metric of TEST.VOC_METRIC."""
        return {"metric": cfg.TEST.VOC_METRIC}

    def evaluate_task(self, detections: Detections, task: str) -> TaskReport:
        """AP of the boxes."""
        return self.ap_report(evaluate_voc(self.dataset, detections, metric=self.metric))

    def write(self, report: EvaluationReport, folder: StrPath) -> None:
        """Write what every evaluator writes, and the files of the development kit."""
        super().write(report, folder)
        write_voc_files(report, self.dataset["images"], folder)


def write_voc_files(report: EvaluationReport, images: Iterable[Mapping[str, Any]], folder: StrPath) -> None:
    """Write `result.txt` and `Main/comp4_det_<split>_<class>.txt` into `folder`.

    images: the image records. The split is the last word of the folder's name (voc_2007_test: test).
    `result.txt` has the mean and every class's AP at IoU .5 ("-": no object). Lines of the other files, which
    the development kit reads, are "image score xmin ymin xmax ymax", corners counted from 1, both inclusive.
    """
    target = Path(folder)
    task = report.tasks["bbox"]
    rows = [("mAP", task.metrics["AP50"])]
    rows += [(name, task.per_category[category]) for category, name in report.names.items()]
    lines = [f"{name:<16}: {value:.4f}" if value >= 0 else f"{name:<16}: -" for name, value in rows]
    write_text(target / "result.txt", "\n".join(lines) + "\n")
    names = {image["id"]: Path(image["file_name"]).stem for image in images}
    detections, split = report.detections, target.name.rpartition("_")[2]
    boxes = detections.boxes
    corners = np.column_stack([boxes[:, :2] + 1, boxes[:, :2] + boxes[:, 2:]])
    for category, name in report.names.items():
        of_class = np.flatnonzero(detections.category_ids == category)
        columns = (array[of_class].tolist() for array in (detections.image_ids, detections.scores, corners))
        text = [
            f"{names[image]} {score:.6f} " + " ".join(f"{side:.1f}" for side in box) + "\n"
            for image, score, box in zip(*columns, strict=True)
        ]
        write_text(target / "Main" / f"comp4_det_{split}_{name}.txt", "".join(text))
