"""From matches to precision at recall points and recall, per category."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from maskrcnn_benchmark.evaluation.cells import Cells
from maskrcnn_benchmark.evaluation.matching import Matches
from maskrcnn_benchmark.layers.library import load_ops


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

    M runs over `max_dets`: the number of best detections per cell that count (None: all). Precision is made
    monotone from the right and read at the first recall >= each of `recall_points` (R,) ascending, 0 beyond
    the last. parity: the machine epsilon in the denominator and the stable order are those of pycocotools and
    lvis-api.
    """
    load_ops()
    bounds = np.searchsorted(cells.categories, np.arange(num_categories + 1))
    columns = (
        matches.outcome,
        matches.gt_ignored,
        cells.scores,
        cells.det_rank,
        cells.det_start[bounds],
        cells.gt_start[bounds],
        recall_points,
    )
    limits = [np.iinfo(np.int64).max if limit is None else limit for limit in max_dets]
    precision, recall = torch.ops.maskrcnn_benchmark.accumulate_precision(
        *map(torch.from_numpy, columns), limits
    )
    return precision.numpy(), recall.numpy()
