"""What objects of each class group are taken for: their own class, another one of some group, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskrcnn_benchmark.evaluation.ap import LVIS_MAX_DETS
from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth, positions, read_ground_truth
from maskrcnn_benchmark.evaluation.overlaps import cell_overlaps
from maskrcnn_benchmark.evaluation.results import Detections
from maskrcnn_benchmark.utils.table import format_table

PAIRS_AT_ONCE = 4_000_000
"""Overlaps of detections and objects held in memory."""


@dataclass(frozen=True)
class Confusion:
    """Objects by group and fate.

    Attributes:
        groups: names of the rows. counts: int64 (G, G + 2): recognised, taken for another class of group
            0, 1, ..., missed. iou: least box IoU of a detection with the object.
    """

    groups: tuple[str, ...]
    counts: np.ndarray
    iou: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        columns = ["recognised", *(f"as {name}" for name in self.groups), "missed"]
        rows = {name: self.counts[i].tolist() for i, name in enumerate(self.groups)}
        return {"iou": self.iou, "columns": columns, "objects": rows}


def format_confusion(confusion: Confusion) -> str:
    """Text table: objects of every group and the shares of their fates."""
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
    max_dets: int = LVIS_MAX_DETS,
) -> Confusion:
    """Look at every object of a grouped category: its fate is that of the detection with the best score that
    overlaps it.

    Args:
        dataset: the annotation file as a dict; crowds and ignored objects are left out.
        detections: of the same images; the `max_dets` best of an image count, of categories in a group.
        groups: disjoint groups of category ids.
        iou: least overlap of the boxes.

    LVIS names objects only by categories that were looked for in the image, so a detection called another
    class may be right as well ("toy", "deer"): shares of other classes are upper bounds there.
    """
    truth = read_ground_truth(dataset, crowd=True, drop_empty=True)
    group_of = np.full(len(truth.category_ids), -1)
    for number, ids in enumerate(groups.values()):
        group_of[np.isin(truth.category_ids, np.asarray(ids, np.int64))] = number
    usable = ~truth.ignore & (group_of[truth.categories] >= 0)
    order = np.flatnonzero(usable)
    truth = truth.select(order[np.argsort(truth.images[order], kind="stable")])
    best = detections.top_per_image(max_dets)
    categories = positions(best.category_ids, truth.category_ids)
    kept = np.flatnonzero((categories >= 0) & (group_of[categories] >= 0))
    images = positions(best.image_ids, truth.image_ids)[kept]
    order = np.lexsort((-best.scores[kept], images))
    found, images, categories = best.select(kept[order]), images[order], categories[kept][order]
    first = _best_overlapping(truth, found, images, iou)
    hit = first >= 0
    taken_for = categories[first[hit]]
    fate = np.full(len(first), len(groups) + 1)
    fate[hit] = np.where(taken_for == truth.categories[hit], 0, 1 + group_of[taken_for])
    counts = np.zeros((len(groups), len(groups) + 2), np.int64)
    np.add.at(counts, (group_of[truth.categories], fate), 1)
    return Confusion(tuple(groups), counts, iou)


def _best_overlapping(truth: GroundTruth, found: Detections, images: np.ndarray, iou: float) -> np.ndarray:
    """int64 (G,): the first detection that overlaps each object by `iou`, -1 for none.

    Both sides are sorted by image (`images` are those of the detections), detections by score inside.
    """
    first = np.full(len(truth.images), len(found))
    bounds = np.arange(len(truth.image_ids) + 1)
    det_start, gt_start = np.searchsorted(images, bounds), np.searchsorted(truth.images, bounds)
    pairs = np.cumsum(np.diff(det_start) * np.diff(gt_start))
    block = 0
    while block < len(pairs):
        done = pairs[block - 1] if block else 0
        end = max(block + 1, int(np.searchsorted(pairs, done + PAIRS_AT_ONCE, side="right")))
        det, gt = det_start[block : end + 1], gt_start[block : end + 1]
        part, objects = np.arange(det[0], det[-1]), np.arange(gt[0], gt[-1])
        overlaps = cell_overlaps(truth.select(objects), found.select(part), det - det[0], gt - gt[0], "bbox")
        columns = np.repeat(np.diff(gt), np.diff(det))  # objects beside each detection
        rows = np.repeat(part, columns)
        beginning = np.repeat(gt[:-1], np.diff(det)) - (np.cumsum(columns) - columns)
        place = np.arange(len(rows)) + np.repeat(beginning, columns)
        close = overlaps >= iou
        np.minimum.at(first, place[close], rows[close])
        block = end
    return np.where(first < len(found), first, -1)
