"""Detections and ground truth grouped by (image, category) pair, so that each pair is one slice.

An LVIS set has millions of (image, category) pairs of which some ten thousand hold anything; only those
exist here. Order everywhere: category ascending, image ascending, then descending score (detections;
ties keep the order of the results) or file order (ground truth). That is the order in which pycocotools
and lvis-api visit them, and equal arrays depend on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth, indices_in
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.native import load_ops

logger = logging.getLogger(__name__)

Similarity = Callable[[GroundTruth, Detections, np.ndarray, np.ndarray], np.ndarray]
"""(ground truth, detections, det_start, gt_start), both sides sorted by pair -> `ImageCategoryPairs.ious`."""


@dataclass(frozen=True)
class PairLayout:
    """P non-empty (image, category) pairs as slices of sorted rows.

    Attributes:
        det_order, gt_order: int64 (D,), (G,), rows of detections and ground truth sorted by pair.
        categories: int64 (P,), index of the category of each pair, ascending.
        det_start, gt_start: int64 (P + 1,); pair p holds det_order[det_start[p]:det_start[p+1]], likewise gt.
    """

    det_order: np.ndarray
    gt_order: np.ndarray
    categories: np.ndarray
    det_start: np.ndarray
    gt_start: np.ndarray

    def category_starts(self, num_categories: int) -> np.ndarray:
        """Index of the first pair of each category, and the number of pairs: int64 (K + 1,)."""
        return np.searchsorted(self.categories, np.arange(num_categories + 1))


def group_pairs(
    truth: GroundTruth,
    scores: np.ndarray,
    *,
    det_images: np.ndarray,
    det_categories: np.ndarray,
    max_per_pair: int | None = None,
) -> PairLayout:
    """Sort detections and ground truth by (image, category) pair with counting sorts.

    scores: float64 (D,), descending inside a pair. det_images, det_categories: int64 (D,), indices into
    `truth.image_ids` and `truth.category_ids`; detections of category -1 are left out. max_per_pair: see
    `build_pairs`.
    """
    load_ops()
    columns = (det_images, det_categories, scores, truth.images, truth.categories)
    layout = torch.ops.maskrcnn_benchmark.group_pairs(
        *(torch.from_numpy(np.ascontiguousarray(column)) for column in columns),
        len(truth.image_ids),
        len(truth.category_ids),
        np.iinfo(np.int64).max if max_per_pair is None else max_per_pair,
    )
    return PairLayout(*(column.numpy() for column in layout))


@dataclass
class ImageCategoryPairs:
    """P non-empty pairs over D detections and G ground truths, both sorted by pair; arrays for native code.

    Attributes:
        categories: int64 (P,), index of the category of each pair.
        det_start, gt_start: int64 (P + 1,); pair p holds detections det_start[p]:det_start[p+1], likewise gt.
        scores, det_areas: float64 (D,). det_rank: int64 (D,), rank by score inside the pair, from 0.
        ignore_unmatched: bool (D,), a detection that matches nothing is ignored instead of a false positive
            (LVIS: categories that are not exhaustively annotated in the image).
        gt_areas: float64 (G,). gt_ignore, gt_crowd: bool (G,).
        ious: float64, the (detections, ground truth) matrices of all pairs in C order, one after another.
    """

    categories: np.ndarray
    det_start: np.ndarray
    gt_start: np.ndarray
    scores: np.ndarray
    det_areas: np.ndarray
    det_rank: np.ndarray
    ignore_unmatched: np.ndarray
    gt_areas: np.ndarray
    gt_ignore: np.ndarray
    gt_crowd: np.ndarray
    ious: np.ndarray


def build_pairs(
    truth: GroundTruth,
    detections: Detections,
    *,
    det_images: np.ndarray,
    det_categories: np.ndarray,
    det_areas: np.ndarray,
    ignore_unmatched: np.ndarray,
    similarity: Similarity,
    max_per_pair: int | None,
) -> ImageCategoryPairs:
    """Sort both sides by (image, category) pair and compute the IoU inside the pairs.

    Args:
        det_images, det_categories: int64 (D,), indices into `truth.image_ids` and `truth.category_ids`.
        det_areas: float64 (D,), in pixels. ignore_unmatched: bool (D,), see `ImageCategoryPairs`.
        similarity: IoU, or what a protocol uses in its place. max_per_pair: keep so many of the best
            detections of each pair (COCO: 100), None all.
    """
    layout = group_pairs(
        truth,
        detections.scores,
        det_images=det_images,
        det_categories=det_categories,
        max_per_pair=max_per_pair,
    )
    order, det_start, gt_start = layout.det_order, layout.det_start, layout.gt_start
    truth, detections = truth.select(layout.gt_order), detections.select(order)
    return ImageCategoryPairs(
        categories=layout.categories,
        det_start=det_start,
        gt_start=gt_start,
        scores=detections.scores,
        det_areas=det_areas[order],
        det_rank=np.arange(len(order)) - np.repeat(det_start[:-1], np.diff(det_start)),
        ignore_unmatched=ignore_unmatched[order],
        gt_areas=truth.areas,
        gt_ignore=truth.ignore,
        gt_crowd=truth.crowd,
        ious=similarity(truth, detections, det_start, gt_start),
    )


def index_detections(detections: Detections, truth: GroundTruth) -> tuple[np.ndarray, np.ndarray]:
    """Look up the image and the category of every detection in the tables of `truth`.

    Returns int64 (D,) indices into `truth.image_ids` and into `truth.category_ids`, -1 for a category that
    the annotations do not list (logged). Raises DataError for an unknown image.
    """
    images = indices_in(truth.image_ids, detections.image_ids)
    if len(images) and images.min() < 0:
        lost = int(detections.image_ids[int(images.argmin())])
        raise DataError(
            f"detections: image id {lost} is not in the annotations; evaluate against the file used to test"
        )
    categories = indices_in(truth.category_ids, detections.category_ids)
    unknown = int((categories < 0).sum())
    if unknown:
        logger.warning(
            "%d of %d detections have a category the annotations do not list", unknown, len(detections)
        )
    return images, categories


def pairs_of_listed_categories(
    truth: GroundTruth,
    detections: Detections,
    *,
    areas: Callable[[Detections], np.ndarray],
    similarity: Similarity,
    max_per_pair: int | None,
) -> tuple[Detections, ImageCategoryPairs]:
    """Build the pairs from all detections whose category `truth` lists; unmatched ones are false positives.

    `areas` maps D detections to float64 (D,) pixels; see `build_pairs` for the others. Returns the kept
    detections in their order and the pairs. Raises DataError for detections of unknown images.
    """
    images, categories = index_detections(detections, truth)
    listed = np.flatnonzero(categories >= 0)
    kept = detections.select(listed)
    pairs = build_pairs(
        truth,
        kept,
        det_images=images[listed],
        det_categories=categories[listed],
        det_areas=areas(kept),
        ignore_unmatched=np.zeros(len(kept), bool),
        similarity=similarity,
        max_per_pair=max_per_pair,
    )
    return kept, pairs
