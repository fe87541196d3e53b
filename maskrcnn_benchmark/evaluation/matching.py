"""Greedy assignment of detections to ground truth, per cell, for all IoU thresholds and area ranges at
once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from maskrcnn_benchmark.evaluation.cells import Cells


@dataclass
class Matches:
    """Outcome per area range A, IoU threshold T and detection D (sorted as in ``Cells``), each bool (A, T,
    D).

    ``matched``: assigned to some ground truth. ``ignored``: counts neither as right nor as wrong.
    ``gt_ignored``: bool (A, G), ground truth left out of the recall's denominator.
    """

    matched: np.ndarray
    ignored: np.ndarray
    gt_ignored: np.ndarray


Matcher = Callable[[Cells, np.ndarray, np.ndarray], Matches]


def match_cells(cells: Cells, thresholds: np.ndarray, area_ranges: np.ndarray) -> Matches:
    """Assign detections to ground truth as pycocotools and lvis-api do; any ``Matcher`` may stand in for
    this one.

    thresholds float64 (T,) ascending; area_ranges float64 (A, 2), both ends inclusive. Detections come by
    descending score; each takes the free ground truth of the best IoU at or above min(threshold, 1 -
    1e-10), among equals the later one; regular ground truth goes before ignored; a crowd stays free. An
    unmatched detection is ignored when its area lies outside the range or when it is forgiven.
    """
    low, high = area_ranges[:, :1], area_ranges[:, 1:]
    gt_ignored = cells.gt_ignore | (cells.gt_areas < low) | (cells.gt_areas > high)
    outside = cells.forgiven | (cells.det_areas < low) | (cells.det_areas > high)
    limits = np.minimum(thresholds, 1 - 1e-10)
    matched = np.zeros((len(area_ranges), len(thresholds), len(cells.scores)), bool)
    ignored = np.zeros_like(matched)
    for cell in np.flatnonzero(np.diff(cells.iou_start)):
        rows = slice(cells.det_start[cell], cells.det_start[cell + 1])
        columns = slice(cells.gt_start[cell], cells.gt_start[cell + 1])
        overlaps = cells.ious[cells.iou_start[cell] : cells.iou_start[cell + 1]]
        overlaps = overlaps.reshape(rows.stop - rows.start, columns.stop - columns.start)
        _match_cell(
            overlaps,
            limits,
            gt_ignored[:, columns],
            cells.gt_crowd[columns],
            matched[..., rows],
            ignored[..., rows],
        )
    ignored |= ~matched & outside[:, None, :]
    return Matches(matched, ignored, gt_ignored)


def _match_cell(
    overlaps: np.ndarray,
    limits: np.ndarray,
    gt_ignored: np.ndarray,
    crowd: np.ndarray,
    matched: np.ndarray,
    ignored: np.ndarray,
) -> None:
    """One cell: overlaps (d, g), gt_ignored (A, g); fills matched and ignored (A, T, d) in place.

    The choice among candidates becomes one argmax of integers: rank by IoU (equal IoU: later is higher),
    plus g for regular ground truth, -1 for what is taken or below the threshold.
    """
    count = overlaps.shape[1]
    free = np.ones((*matched.shape[:2], count), bool)
    preferred = np.where(gt_ignored, 0, count)[:, None, :]
    area_index = np.arange(len(gt_ignored))[:, None]
    threshold_index = np.arange(len(limits))
    rank = np.empty(count, np.int64)
    for row in np.flatnonzero(overlaps.max(axis=1) >= limits.min()):
        rank[np.argsort(overlaps[row], kind="stable")] = np.arange(count)
        candidate = free & (overlaps[row] >= limits[:, None])
        choice = np.where(candidate, rank + preferred, -1)
        best = choice.argmax(axis=-1)
        found = choice.max(axis=-1) >= 0
        matched[..., row] = found
        ignored[..., row] = found & gt_ignored[area_index, best]
        free[area_index, threshold_index, best] &= ~found | crowd[best]
