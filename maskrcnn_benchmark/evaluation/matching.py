"""Matching of detections to ground truth, and precision and recall from the matches (native code)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from maskrcnn_benchmark.evaluation.pairs import ImageCategoryPairs
from maskrcnn_benchmark.utils.native import load_ops

# Values of Matches.outcome.
FALSE_POSITIVE, TRUE_POSITIVE, IGNORED = 0, 1, 2


@dataclass
class Matches:
    """Outcome of matching; detections and ground truth sorted as in `ImageCategoryPairs`.

    `outcome`: uint8 (A, T, D) per area range, IoU threshold and detection: FALSE_POSITIVE, TRUE_POSITIVE or
    IGNORED. `gt_ignored`: bool (A, G), ground truth left out of the recall's denominator.
    """

    outcome: np.ndarray
    gt_ignored: np.ndarray


def match_pairs(pairs: ImageCategoryPairs, thresholds: np.ndarray, area_ranges: np.ndarray) -> Matches:
    """Match detections to ground truth greedily in descending score order, as pycocotools and lvis-api do.

    thresholds: float64 (T,) of the IoU. area_ranges: float64 (A, 2) in pixels, both ends inclusive.

    Each detection takes the free ground truth of the highest IoU at or above min(threshold, 1 - 1e-10), among
    equals the later one; regular ground truth goes before ignored; a crowd stays free. A detection matched
    to ignored ground truth is ignored, and so is an unmatched one whose area lies outside the range or that
    has `ignore_unmatched`.
    """
    load_ops()
    columns = (
        pairs.ious,
        pairs.det_start,
        pairs.gt_start,
        pairs.det_areas,
        pairs.ignore_unmatched,
        pairs.gt_areas,
        pairs.gt_ignore,
        pairs.gt_crowd,
        thresholds,
        area_ranges,
    )
    outcome, gt_ignored = torch.ops.maskrcnn_benchmark.match_detections(*map(torch.from_numpy, columns))
    return Matches(outcome.numpy(), gt_ignored.numpy())


def accumulate(
    pairs: ImageCategoryPairs,
    matches: Matches,
    *,
    num_categories: int,
    recall_points: np.ndarray,
    max_dets: Sequence[int | None],
) -> tuple[np.ndarray, np.ndarray]:
    """Compute interpolated precision at recall points, and the final recall, of every category.

    recall_points: float64 (R,) ascending. max_dets: M limits of the number of best detections per pair that
    count, None for all of them.

    Returns precision float64 (T, R, K, A, M) and recall float64 (T, K, A, M); -1 where a category has no
    ground truth. Precision is made monotone from the right and read at the first recall >= each recall point,
    0 beyond the last. parity: the machine epsilon in the denominator and the stable order are those of
    pycocotools and lvis-api.
    """
    load_ops()
    bounds = np.searchsorted(pairs.categories, np.arange(num_categories + 1))
    columns = (
        matches.outcome,
        matches.gt_ignored,
        pairs.scores,
        pairs.det_rank,
        pairs.det_start[bounds],
        pairs.gt_start[bounds],
        recall_points,
    )
    limits = [np.iinfo(np.int64).max if limit is None else limit for limit in max_dets]
    precision, recall = torch.ops.maskrcnn_benchmark.accumulate_precision(
        *map(torch.from_numpy, columns), limits
    )
    return precision.numpy(), recall.numpy()
