"""Confusion between class groups: objects recognised, taken for another class of some group, or missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth, indices_in, read_ground_truth
from maskrcnn_benchmark.evaluation.iou import pair_ious
from maskrcnn_benchmark.evaluation.protocols.lvis import MAX_DETS
from maskrcnn_benchmark.utils.table import format_table

IOUS_AT_ONCE = 4_000_000
"""IoUs of detections and objects in memory at a time."""


@dataclass(frozen=True)
class Confusion:
    """Numbers of objects by class group and outcome.

    Attributes:
        groups: names of the G rows. counts: int64 (G, G + 2), columns: recognised, taken for another class of
            group 0, 1, ..., missed. iou: min box IoU of a detection with the object.
    """

    groups: tuple[str, ...]
    counts: np.ndarray
    iou: float

    def to_json(self) -> dict[str, Any]:
        """The counts as plain data."""
        columns = ["recognised", *(f"as {name}" for name in self.groups), "missed"]
        rows = {name: self.counts[i].tolist() for i, name in enumerate(self.groups)}
        return {"iou": self.iou, "columns": columns, "objects": rows}


def format_confusion(confusion: Confusion) -> str:
    """Text table: the number of objects of every group and the fractions of their outcomes."""
    headers = ["objects of", "number", "recognised", *(f"as {name}" for name in confusion.groups), "missed"]
    rows = []
    for name, counts in zip(confusion.groups, confusion.counts, strict=True):
        total = int(counts.sum())
        rows.append([name, total, *((counts / total).tolist() if total else [None] * len(counts))])
    return (
        f"Best detection of any class with box IoU >= {confusion.iou}: the object's class, another class of "
        f"a group, or none\n{format_table(headers, rows)}"
    )


def confusion_of_groups(
    dataset: Mapping[str, Any],
    detections: Detections,
    groups: Mapping[str, Sequence[int]],
    *,
    iou: float = 0.5,
    max_dets: int = MAX_DETS,
) -> Confusion:
    """Count what the objects of every class group are taken for by their best-scored detection of any class.

    Args:
        dataset: the annotation file as a dict; crowds and ignored objects are left out.
        detections: of the same images; the `max_dets` best of an image count, of categories in a group.
        groups: disjoint groups of category ids.
        iou: min IoU of the boxes.

    LVIS names objects only by categories that were annotated in the image, so a detection of another class
    may be right as well ("toy", "deer"): the counts of other classes are upper bounds there.
    """
    truth = read_ground_truth(dataset, crowd=True, drop_empty=True)
    group_of = np.full(len(truth.category_ids), -1)
    for group, ids in enumerate(groups.values()):
        group_of[np.isin(truth.category_ids, np.asarray(ids, np.int64))] = group
    usable = np.flatnonzero(~truth.ignore & (group_of[truth.categories] >= 0))
    truth = truth.select(usable[np.argsort(truth.images[usable], kind="stable")])
    best = detections.top_per_image(max_dets)
    categories = indices_in(truth.category_ids, best.category_ids)
    kept = np.flatnonzero((categories >= 0) & (group_of[categories] >= 0))
    images = indices_in(truth.image_ids, best.image_ids)[kept]
    order = np.lexsort((-best.scores[kept], images))
    ranked, images, categories = best.select(kept[order]), images[order], categories[kept][order]
    first = _best_match(truth, ranked, images, iou)
    hit = first >= 0
    taken_for = categories[first[hit]]
    outcome = np.full(len(first), len(groups) + 1)
    outcome[hit] = np.where(taken_for == truth.categories[hit], 0, 1 + group_of[taken_for])
    counts = np.zeros((len(groups), len(groups) + 2), np.int64)
    np.add.at(counts, (group_of[truth.categories], outcome), 1)
    return Confusion(tuple(groups), counts, iou)


def _best_match(truth: GroundTruth, detections: Detections, images: np.ndarray, iou: float) -> np.ndarray:
    """Index of the first detection whose IoU with each object is at least `iou`: int64 (G,), -1 for none.

    Both sides are sorted by image, detections by score inside; images int64 (D,) are those of the detections.
    """
    first = np.full(len(truth.images), len(detections))
    bounds = np.arange(len(truth.image_ids) + 1)
    det_start, gt_start = np.searchsorted(images, bounds), np.searchsorted(truth.images, bounds)
    num_ious = np.cumsum(np.diff(det_start) * np.diff(gt_start))
    block = 0
    while block < len(num_ious):
        done = num_ious[block - 1] if block else 0
        end = max(block + 1, int(np.searchsorted(num_ious, done + IOUS_AT_ONCE, side="right")))
        det, gt = det_start[block : end + 1], gt_start[block : end + 1]
        part, objects = np.arange(det[0], det[-1]), np.arange(gt[0], gt[-1])
        ious = pair_ious(truth.select(objects), detections.select(part), det - det[0], gt - gt[0], "bbox")
        columns = np.repeat(np.diff(gt), np.diff(det))  # objects in the image of each detection
        rows = np.repeat(part, columns)
        beginning = np.repeat(gt[:-1], np.diff(det)) - (np.cumsum(columns) - columns)
        index = np.arange(len(rows)) + np.repeat(beginning, columns)
        close = ious >= iou
        np.minimum.at(first, index[close], rows[close])
        block = end
    return np.where(first < len(detections), first, -1)
