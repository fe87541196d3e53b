"""Greedy assignment of detections to ground truth, per cell, for all IoU thresholds and area ranges at
once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from maskrcnn_benchmark.evaluation.cells import Cells
from maskrcnn_benchmark.layers.library import load_ops

# Values of Matches.outcome.
WRONG, RIGHT, IGNORED = 0, 1, 2


@dataclass
class Matches:
    """Outcome of matching; detections and ground truth sorted as in `Cells`.

    `outcome`: uint8 (A, T, D) per area range, IoU threshold and detection: WRONG, RIGHT or IGNORED (counts
    neither way). `gt_ignored`: bool (A, G), ground truth left out of the recall's denominator.
    """

    outcome: np.ndarray
    gt_ignored: np.ndarray


def match_cells(cells: Cells, thresholds: np.ndarray, area_ranges: np.ndarray) -> Matches:
    """Assign detections to ground truth as pycocotools and lvis-api do.

    thresholds float64 (T,); area_ranges float64 (A, 2), both ends inclusive. Detections come by descending
    score; each takes the free ground truth of the best IoU at or above min(threshold, 1 - 1e-10), among
    equals the later one; regular ground truth goes before ignored; a crowd stays free. A detection matched
    to ignored ground truth is ignored, and so is an unmatched one whose area lies outside the range or that
    is forgiven.
    """
    load_ops()
    columns = (
        cells.ious,
        cells.det_start,
        cells.gt_start,
        cells.det_areas,
        cells.forgiven,
        cells.gt_areas,
        cells.gt_ignore,
        cells.gt_crowd,
        thresholds,
        area_ranges,
    )
    outcome, gt_ignored = torch.ops.maskrcnn_benchmark.match_detections(*map(torch.from_numpy, columns))
    return Matches(outcome.numpy(), gt_ignored.numpy())
