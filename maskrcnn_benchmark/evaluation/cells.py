"""Non-empty (category, image) cells: detections and ground truth sorted so that each cell is one slice.

An LVIS set has millions of (category, image) pairs of which some ten thousand hold anything; only those
exist here. Order everywhere: category ascending, image ascending, then descending score (detections;
ties keep the order of the results) or file order (ground truth). That is the order in which pycocotools
and lvis-api visit them, and equal arrays depend on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth, positions
from maskrcnn_benchmark.evaluation.results import Detections, ranks
from maskrcnn_benchmark.utils.errors import DataError

logger = logging.getLogger(__name__)

Overlaps = Callable[[GroundTruth, Detections, np.ndarray, np.ndarray], np.ndarray]
"""(ground truth, detections, det_start, gt_start), sorted by cell -> `Cells.ious`."""


@dataclass
class Cells:
    """C cells over D detections and G ground truths, both sorted by cell; plain arrays for native code.

    Attributes:
        categories: int64 (C,), position of the category of each cell.
        det_start, gt_start: int64 (C + 1,); cell c holds detections det_start[c]:det_start[c+1], likewise gt.
        scores, det_areas: float64 (D,). det_rank: int64 (D,), place by score inside the cell, from 0.
        forgiven: bool (D,), unmatched ones are neither right nor wrong (LVIS: not exhaustively annotated).
        gt_areas: float64 (G,). gt_ignore, gt_crowd: bool (G,).
        ious: float64, the (detections, ground truths) matrices of all cells in C order, one after another;
            rows in the order of the detections.
    """

    categories: np.ndarray
    det_start: np.ndarray
    gt_start: np.ndarray
    scores: np.ndarray
    det_areas: np.ndarray
    det_rank: np.ndarray
    forgiven: np.ndarray
    gt_areas: np.ndarray
    gt_ignore: np.ndarray
    gt_crowd: np.ndarray
    ious: np.ndarray


def build_cells(
    truth: GroundTruth,
    detections: Detections,
    *,
    det_images: np.ndarray,
    det_categories: np.ndarray,
    det_areas: np.ndarray,
    forgiven: np.ndarray,
    overlaps: Overlaps,
    per_cell_limit: int | None,
) -> Cells:
    """Sort both sides into cells and compute their IoU.

    `det_images, det_categories` int64 (D,) are positions in the tables of `truth`; `det_areas`
    float64 (D,) and `forgiven` bool (D,) belong to `detections`. `overlaps` compares inside cells.
    `per_cell_limit` keeps the best of
    each cell (COCO: 100).
    """
    number = len(truth.image_ids)
    det_keys = det_categories * number + det_images
    order = np.lexsort((-detections.scores, det_keys))
    rank = ranks(det_keys[order])
    if per_cell_limit is not None:
        order, rank = order[rank < per_cell_limit], rank[rank < per_cell_limit]
    det_keys = det_keys[order]
    gt_keys = truth.categories * number + truth.images
    gt_order = np.argsort(gt_keys, kind="stable")
    gt_keys = gt_keys[gt_order]
    keys = np.union1d(det_keys, gt_keys)
    bounds = np.append(keys, np.iinfo(np.int64).max)
    det_start = np.searchsorted(det_keys, bounds)
    gt_start = np.searchsorted(gt_keys, bounds)
    truth, detections = truth.select(gt_order), detections.select(order)
    return Cells(
        categories=keys // max(number, 1),
        det_start=det_start,
        gt_start=gt_start,
        scores=detections.scores,
        det_areas=det_areas[order],
        det_rank=rank,
        forgiven=forgiven[order],
        gt_areas=truth.areas,
        gt_ignore=truth.ignore,
        gt_crowd=truth.crowd,
        ious=overlaps(truth, detections, det_start, gt_start),
    )


def locate(detections: Detections, truth: GroundTruth) -> tuple[np.ndarray, np.ndarray]:
    """Positions of each detection's image and category; unknown categories are -1, unknown images an
    error.
    """
    images = positions(detections.image_ids, truth.image_ids)
    if len(images) and images.min() < 0:
        lost = int(detections.image_ids[int(images.argmin())])
        raise DataError(
            f"detections: image id {lost} is not in the annotations; evaluate against the file used to test"
        )
    categories = positions(detections.category_ids, truth.category_ids)
    unknown = int((categories < 0).sum())
    if unknown:
        logger.warning(
            "%d of %d detections have a category the annotations do not list", unknown, len(detections)
        )
    return images, categories


def cells_of_known(
    truth: GroundTruth,
    detections: Detections,
    *,
    areas: Callable[[Detections], np.ndarray],
    overlaps: Overlaps,
    per_cell_limit: int | None,
) -> tuple[Detections, Cells]:
    """The detections (D of them) of categories that `truth` has, and the cells of both; none is forgiven.

    `areas` gives float64 (D,). Raises DataError for detections of unknown images.
    """
    images, categories = locate(detections, truth)
    chosen = np.flatnonzero(categories >= 0)
    kept = detections.select(chosen)
    cells = build_cells(
        truth,
        kept,
        det_images=images[chosen],
        det_categories=categories[chosen],
        det_areas=areas(kept),
        forgiven=np.zeros(len(kept), bool),
        overlaps=overlaps,
        per_cell_limit=per_cell_limit,
    )
    return kept, cells
