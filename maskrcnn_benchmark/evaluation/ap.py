"""Average precision of boxes or masks under the COCO or the LVIS protocol, from arrays in memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from maskrcnn_benchmark.evaluation.accumulate import accumulate
from maskrcnn_benchmark.evaluation.cells import build_cells, cells_of_known, locate
from maskrcnn_benchmark.evaluation.ground_truth import GroundTruth, positions, read_ground_truth
from maskrcnn_benchmark.evaluation.matching import match_cells
from maskrcnn_benchmark.evaluation.overlaps import cell_overlaps, check_masks
from maskrcnn_benchmark.evaluation.results import Detections
from maskrcnn_benchmark.utils.errors import DataError

logger = logging.getLogger(__name__)

# parity: grids of pycocotools and lvis-api (np.arange would differ in the last bit).
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
AREA_RANGES = np.array([[0.0, 1e10], [0.0, 1024.0], [1024.0, 9216.0], [9216.0, 1e10]])
AREA_NAMES = ("all", "small", "medium", "large")
COCO_MAX_DETS = (1, 10, 100)
LVIS_MAX_DETS = 300
LVIS_FREQUENCIES = ("r", "c", "f")


@dataclass
class APResult:
    """Arrays and settings of one evaluation.

    Attributes:
        precision: float64, LVIS (T, R, K, A), COCO (T, R, K, A, M); -1 for categories without ground truth.
        recall: float64, LVIS (T, K, A), COCO (T, K, A, M).
        category_ids: int64 (K,) ascending.
        protocol: "coco" or "lvis". iou_type: "bbox", "segm" or "keypoints". area: "box", "mask" or
            "keypoints", what a detection's area is.
        frequencies: LVIS `frequency` per category id where the file has it.
        num_detections: how many counted after the limit.
        limit: the limit in the names of recalls: "100" (COCO) and "300" (LVIS) per image, or like
            "10000/class".
        area_names: names of the area ranges, A of them, "all" first. max_dets: COCO limits, M of them.
    """

    precision: np.ndarray
    recall: np.ndarray
    category_ids: np.ndarray
    protocol: str
    iou_type: str
    area: str
    num_detections: int
    frequencies: dict[int, str] = field(default_factory=dict)
    limit: str = str(COCO_MAX_DETS[-1])
    area_names: tuple[str, ...] = AREA_NAMES
    max_dets: tuple[int, ...] = COCO_MAX_DETS

    def mean_precision(
        self, *, iou: float | None = None, area: str = "all", category_ids: Sequence[int] | None = None
    ) -> float:
        """Mean precision over thresholds (or the one `iou`), recall points and categories; -1 if
        undefined.
        """
        values = self.precision[:, :, :, self.area_names.index(area)]
        if values.ndim == 4:
            values = values[..., -1]
        if iou is not None:
            values = values[np.isclose(IOU_THRESHOLDS, iou)]
        if category_ids is not None:
            values = values[:, :, np.isin(self.category_ids, np.asarray(category_ids, np.int64))]
        return _mean(values)

    def mean_recall(self, *, area: str = "all", max_dets: int | None = None) -> float:
        """Mean final recall over thresholds and categories; `max_dets` only for COCO (default the
        largest).
        """
        values = self.recall[:, :, self.area_names.index(area)]
        if values.ndim == 3:
            values = values[..., self.max_dets.index(max_dets) if max_dets is not None else -1]
        return _mean(values)

    def metrics(self) -> dict[str, float]:
        """The protocol's summary; -1 where nothing is defined.

        COCO: AP, AP50, AP75, APs, APm, APl, AR@1, AR@10, AR@100, ARs@100, ARm@100, ARl@100; of keypoints AP,
        AP50, AP75, APm, APl, AR@20, ARm@20, ARl@20.
        LVIS: AP, AP50, AP75, APs, APm, APl, APr, APc, APf, AR@300, ARs@300, ARm@300, ARl@300; with a limit
        per class its number and "/class" stand for 300.
        """
        out = {
            "AP": self.mean_precision(),
            "AP50": self.mean_precision(iou=0.5),
            "AP75": self.mean_precision(iou=0.75),
        }
        sized = [(name[0], name) for name in self.area_names[1:]]
        out |= {f"AP{letter}": self.mean_precision(area=name) for letter, name in sized}
        if self.protocol == "coco":
            out |= {f"AR@{count}": self.mean_recall(max_dets=count) for count in self.max_dets}
        else:
            for letter in LVIS_FREQUENCIES:
                ids = [category for category, value in self.frequencies.items() if value == letter]
                out[f"AP{letter}"] = self.mean_precision(category_ids=ids)
            out[f"AR@{self.limit}"] = self.mean_recall()
        out |= {f"AR{letter}@{self.limit}": self.mean_recall(area=name) for letter, name in sized}
        return out

    def per_category(self) -> dict[int, float]:
        """AP of every category id; -1 without ground truth."""
        ids = self.category_ids.tolist()
        return {category: self.mean_precision(category_ids=[category]) for category in ids}

    def per_category_recall(self) -> dict[int, float]:
        """Final recall of every category id, mean over thresholds; -1 without ground truth."""
        values = self.recall[:, :, 0] if self.recall.ndim == 3 else self.recall[:, :, 0, -1]
        return {int(c): _mean(values[:, k]) for k, c in enumerate(self.category_ids)}


def _mean(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(np.mean(defined)) if len(defined) else -1.0


def evaluate_coco(
    dataset: Mapping[str, Any],
    detections: Detections,
    iou_type: str,
    *,
    area: str = "mask",
) -> APResult:
    """COCO protocol, array-equal to pycocotools (whose results carry a box only in box evaluation).

    `dataset` is the annotation file as a dict. `area`: a detection's area in mask evaluation, "mask"
    or "box". Differs from pycocotools only for an annotation with id 0, which pycocotools takes for "no
    match". Raises DataError for a detection of an unknown image or without mask where masks are compared.
    """
    truth = read_ground_truth(dataset, crowd=True, drop_empty=False)
    detections = detections.scored_for(iou_type)
    check_masks(truth, detections, iou_type)
    kept, cells = cells_of_known(
        truth,
        detections,
        areas=partial(_areas, iou_type=iou_type, area=area),
        overlaps=partial(cell_overlaps, iou_type=iou_type),
        per_cell_limit=COCO_MAX_DETS[-1],
    )
    matches = match_cells(cells, IOU_THRESHOLDS, AREA_RANGES)
    precision, recall = accumulate(
        cells,
        matches,
        num_categories=len(truth.category_ids),
        recall_points=RECALL_POINTS,
        max_dets=COCO_MAX_DETS,
    )
    return APResult(precision, recall, truth.category_ids, "coco", iou_type, area, len(kept))


def evaluate_lvis(
    dataset: Mapping[str, Any],
    detections: Detections,
    iou_type: str,
    *,
    area: str = "box",
    fixed_limit: int | None = None,
) -> APResult:
    """LVIS federated protocol, v0.5 and v1 (the 300 best per image over all categories), array-equal to
    lvis-api 0.5.3. With `fixed_limit` AP-fixed (Dave et al. 2021): that many of the best detections of
    every category over all images, without a limit per image.

    A detection counts only where its category has ground truth in the image or is known to be absent
    (`neg_category_ids`); unmatched ones of `not_exhaustive_category_ids` are ignored. `area`: a
    detection's area in mask evaluation; published numbers use the "box". Raises DataError as
    `evaluate_coco` does.
    """
    truth = read_ground_truth(dataset, crowd=False, drop_empty=True)
    detections = detections.scored_for(iou_type)
    if fixed_limit is None:
        limited, limit = detections.top_per_image(LVIS_MAX_DETS), str(LVIS_MAX_DETS)
    else:
        limited, limit = detections.top_per_category(fixed_limit), f"{fixed_limit}/class"
    images, categories = locate(limited, truth)
    check_masks(truth, limited, iou_type)
    areas = _areas(limited, iou_type, area)
    pairs = categories * len(truth.image_ids) + images
    present = np.isin(pairs, truth.categories * len(truth.image_ids) + truth.images)
    absent = np.isin(pairs, _listed_pairs(dataset, truth, "neg_category_ids"))
    forgiven = np.isin(pairs, _listed_pairs(dataset, truth, "not_exhaustive_category_ids"))
    sane = (areas > 0) & (areas < np.inf)
    chosen = np.flatnonzero((categories >= 0) & (present | absent) & sane)
    cells = build_cells(
        truth,
        limited.select(chosen),
        det_images=images[chosen],
        det_categories=categories[chosen],
        det_areas=areas[chosen],
        forgiven=forgiven[chosen],
        overlaps=partial(cell_overlaps, iou_type=iou_type),
        per_cell_limit=None,
    )
    matches = match_cells(cells, IOU_THRESHOLDS, AREA_RANGES)
    precision, recall = accumulate(
        cells, matches, num_categories=len(truth.category_ids), recall_points=RECALL_POINTS, max_dets=(None,)
    )
    arrays = (precision[..., 0], recall[..., 0], truth.category_ids)
    frequencies = {c["id"]: c["frequency"] for c in dataset["categories"] if "frequency" in c}
    return APResult(*arrays, "lvis", iou_type, area, len(limited), frequencies, limit)


def _areas(detections: Detections, iou_type: str, area: str) -> np.ndarray:
    """float64 (D,): width * height, or the number of mask pixels for masks with `area` "mask"."""
    if area not in ("box", "mask"):
        raise DataError(f"area {area!r} is unknown; expected 'box' or 'mask'")
    if iou_type != "segm" or area == "box" or detections.rles is None:
        return detections.boxes[:, 2] * detections.boxes[:, 3]
    return detections.mask_areas()


def _listed_pairs(dataset: Mapping[str, Any], truth: GroundTruth, key: str) -> np.ndarray:
    """int64: category * I + image for every category that the images list under `key`."""
    pairs = [(image["id"], category) for image in dataset["images"] for category in image.get(key, ())]
    table = np.array(pairs, np.int64).reshape(-1, 2)
    categories = positions(table[:, 1], truth.category_ids)
    images = positions(table[:, 0], truth.image_ids)
    return (categories * len(truth.image_ids) + images)[categories >= 0]
