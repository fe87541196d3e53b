"""Non-empty (category, picture) cells: detections and ground truth sorted so that each cell is one slice.

An LVIS set has millions of (category, picture) pairs of which some ten thousand hold anything; only those
exist here. Order everywhere: category ascending, picture ascending, then descending score (detections;
ties keep the order of the results) or file order (ground truth). That is the order in which pycocotools
and lvis-api visit them, and equal arrays depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth, annotation_rle
from maskrcnn_benchmark.evaluation.results import Detections
from maskrcnn_benchmark.utils.errors import DataError


@dataclass
class Cells:
    """C cells over D detections and G ground truths, both sorted by cell; plain arrays, fit for native code.

    Attributes:
        categories: int64 (C,), position of the category of each cell.
        det_start, gt_start: int64 (C + 1,); cell c holds detections det_start[c]:det_start[c+1], likewise gt.
        scores, det_areas: float64 (D,). det_rank: int64 (D,), place by score inside the cell, from 0.
        forgiven: bool (D,), unmatched ones are neither right nor wrong (LVIS: not exhaustively annotated).
        gt_areas: float64 (G,). gt_ignore, gt_crowd: bool (G,).
        iou_start: int64 (C + 1,). ious: float64, cell c's (detections, ground truths) matrix in C order at
            iou_start[c]:iou_start[c+1]; rows in the order of the detections.
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
    iou_start: np.ndarray
    ious: np.ndarray


def _ranks(keys: np.ndarray) -> np.ndarray:
    """Position of every element inside its run of equal ``keys`` (sorted)."""
    if not len(keys):
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    return np.arange(len(keys)) - np.repeat(starts, np.diff(np.r_[starts, len(keys)]))


def build_cells(
    truth: GroundTruth,
    detections: Detections,
    *,
    det_images: np.ndarray,
    det_categories: np.ndarray,
    det_areas: np.ndarray,
    forgiven: np.ndarray,
    iou_type: str,
    per_cell_limit: int | None,
) -> Cells:
    """Sort both sides into cells and compute their IoU.

    ``det_images, det_categories`` int64 (D,) are positions in the tables of ``truth``; ``det_areas``
    float64 (D,) and ``forgiven`` bool (D,) belong to ``detections``. ``per_cell_limit`` keeps the best of
    each cell (COCO: 100).
    """
    number = len(truth.image_ids)
    det_keys = det_categories * number + det_images
    order = np.lexsort((-detections.scores, det_keys))
    rank = _ranks(det_keys[order])
    if per_cell_limit is not None:
        order, rank = order[rank < per_cell_limit], rank[rank < per_cell_limit]
    det_keys = det_keys[order]
    gt_keys = truth.categories * number + truth.images
    gt_order = np.argsort(gt_keys, kind="stable")
    gt_keys = gt_keys[gt_order]
    keys = np.union1d(det_keys, gt_keys)
    bounds = np.append(keys, np.iinfo(np.int64).max)
    det_start: np.ndarray = np.searchsorted(det_keys, bounds)
    gt_start: np.ndarray = np.searchsorted(gt_keys, bounds)
    crowd = truth.crowd[gt_order]
    rows = np.split(order, det_start[1:-1])[: len(keys)]
    columns = np.split(gt_order, gt_start[1:-1])[: len(keys)]
    iou_start, ious = _overlaps(_Shapes(truth, detections, iou_type), rows, columns)
    return Cells(
        categories=keys // max(number, 1),
        det_start=det_start,
        gt_start=gt_start,
        scores=detections.scores[order],
        det_areas=det_areas[order],
        det_rank=rank,
        forgiven=forgiven[order],
        gt_areas=truth.areas[gt_order],
        gt_ignore=truth.ignore[gt_order],
        gt_crowd=crowd,
        iou_start=iou_start,
        ious=ious,
    )


def _overlaps(
    shapes: _Shapes, rows: list[np.ndarray], columns: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Where each cell's IoU begins, and all IoU; rows and columns hold the positions of every cell."""
    sizes = [len(r) * len(c) for r, c in zip(rows, columns, strict=True)]
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    ious = np.zeros(int(start[-1]))
    for cell in np.flatnonzero(sizes):
        ious[start[cell] : start[cell + 1]] = shapes.iou(rows[cell], columns[cell]).reshape(-1)
    return start, ious


class _Shapes:
    """IoU of chosen detections and ground truths, as boxes or as masks (RLE made once per annotation)."""

    def __init__(self, truth: GroundTruth, detections: Detections, iou_type: str) -> None:
        if iou_type not in ("bbox", "segm"):
            raise DataError(f"iou_type {iou_type!r} is unknown; expected 'bbox' or 'segm'")
        if iou_type == "segm" and detections.rles is None and len(detections):
            raise DataError(
                "segm evaluation needs a segmentation in every detection; evaluate 'bbox' or add masks"
            )
        self.truth, self.detections, self.segm = truth, detections, iou_type == "segm"
        if self.segm:
            self._check_sizes()

    def _check_sizes(self) -> None:
        """DataError naming the picture of a mask of another size, which could never overlap anything."""
        for image_id, rle in zip(self.detections.image_ids.tolist(), self.detections.rles or [], strict=True):
            if tuple(rle["size"]) != self.truth.sizes[image_id]:
                raise DataError(
                    f"detections: a mask of image {image_id} has size {list(rle['size'])} (height, width), "
                    f"the annotations say {list(self.truth.sizes[image_id])}; encode masks at that size"
                )

    def iou(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """float64 (len(rows), len(columns)); for a crowd the overlap counts against the detection's area
        alone.
        """
        from pycocotools import mask as mask_utils

        flags = self.truth.crowd[columns].astype(int).tolist()
        if not self.segm:
            return np.asarray(mask_utils.iou(self.detections.boxes[rows], self.truth.boxes[columns], flags))
        masks = self.detections.rles or []
        annotations = [self.truth.annotations[int(column)] for column in columns]
        right = [annotation_rle(a, *self.truth.sizes[a["image_id"]]) for a in annotations]
        return np.asarray(mask_utils.iou([masks[int(row)] for row in rows], right, flags))
