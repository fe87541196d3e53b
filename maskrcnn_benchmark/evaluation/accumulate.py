"""From matches to precision at recall points and recall, per category."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskrcnn_benchmark.evaluation.cells import Cells
from maskrcnn_benchmark.evaluation.matching import Matches


def accumulate(
    cells: Cells,
    matches: Matches,
    *,
    num_categories: int,
    recall_points: np.ndarray,
    max_dets: Sequence[int | None],
) -> tuple[np.ndarray, np.ndarray]:
    """precision float64 (T, R, K, A, M) and recall float64 (T, K, A, M); -1 where a category has no ground
    truth.

    M runs over ``max_dets``: the number of best detections per cell that count (None: all). Precision is made
    monotone from the right and read at the first recall >= each of ``recall_points`` (R,), 0 beyond the last.
    parity: the machine epsilon in the denominator and the stable order are those of pycocotools and lvis-api.
    """
    areas, thresholds = matches.matched.shape[:2]
    shape = (thresholds, len(recall_points), num_categories, areas, len(max_dets))
    precision = np.full(shape, -1.0)
    recall = np.full((thresholds, num_categories, areas, len(max_dets)), -1.0)
    bounds = np.searchsorted(cells.categories, np.arange(num_categories + 1))
    for category in np.unique(cells.categories):
        first, last = bounds[category], bounds[category + 1]
        rows = slice(cells.det_start[first], cells.det_start[last])
        columns = slice(cells.gt_start[first], cells.gt_start[last])
        positives = (~matches.gt_ignored[:, columns]).sum(axis=1)
        if not positives.any():
            continue
        order = np.argsort(-cells.scores[rows], kind="stable")
        right = (matches.matched[..., rows] & ~matches.ignored[..., rows])[..., order]
        wrong = (~matches.matched[..., rows] & ~matches.ignored[..., rows])[..., order]
        rank = cells.det_rank[rows][order]
        for slot, limit in enumerate(max_dets):
            kept = np.ones(len(rank), bool) if limit is None else rank < limit
            for area in np.flatnonzero(positives):
                curves = _curves(
                    right[area][:, kept], wrong[area][:, kept], int(positives[area]), recall_points
                )
                precision[:, :, category, area, slot], recall[:, category, area, slot] = curves
    return precision, recall


def _curves(
    right: np.ndarray, wrong: np.ndarray, positives: int, recall_points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Precision (T, R) and final recall (T,) of one category and area range; right, wrong: bool (T, n) by
    score.
    """
    count = right.shape[1]
    at_points = np.zeros((len(right), len(recall_points)))
    if not count:
        return at_points, np.zeros(len(right))
    true = np.cumsum(right, axis=1).astype(np.float64)
    false = np.cumsum(wrong, axis=1).astype(np.float64)
    recalls = true / positives
    precisions = true / (false + true + np.spacing(1))
    precisions = np.maximum.accumulate(precisions[:, ::-1], axis=1)[:, ::-1]
    for index in range(len(right)):
        places = np.searchsorted(recalls[index], recall_points, side="left")
        inside = places < count
        at_points[index, inside] = precisions[index, places[inside]]
    return at_points, recalls[:, -1]
