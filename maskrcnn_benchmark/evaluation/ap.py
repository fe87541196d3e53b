"""AP of one evaluation: arrays of precision and recall, or AP per class, and the numbers read from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

# parity: grids of pycocotools and lvis-api (np.arange would differ in the last bit).
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
AREA_RANGES = np.array([[0.0, 1e10], [0.0, 1024.0], [1024.0, 9216.0], [9216.0, 1e10]])
AREA_NAMES = ("all", "small", "medium", "large")
COCO_MAX_DETS = (1, 10, 100)
LVIS_FREQUENCIES = ("r", "c", "f")


@dataclass
class APResult:
    """Precision and recall of one evaluation by the COCO or the LVIS protocol.

    T IoU thresholds, R recall points, K categories, A area ranges, M limits of detections per image.

    Attributes:
        precision: float64, LVIS (T, R, K, A), COCO (T, R, K, A, M); -1 for categories without ground truth.
        recall: float64, LVIS (T, K, A), COCO (T, K, A, M).
        category_ids: int64 (K,) ascending.
        protocol: "coco" or "lvis". iou_type: "bbox", "segm" or "keypoints". area: "box", "mask" or
            "keypoints", what a detection's area is.
        frequencies: LVIS `frequency` per category id where the file has it.
        num_detections: number of detections after the limit.
        limit: detections that count, in the names of recalls: "100" (COCO) and "300" (LVIS) per image, or for
            example "10000/class".
        area_names: names of the A area ranges, "all" first. max_dets: the M limits of COCO.
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
        """Mean precision over thresholds (or only `iou`), recall points and categories; -1 if undefined."""
        values = self.precision[:, :, :, self.area_names.index(area)]
        if values.ndim == 4:
            values = values[..., -1]
        if iou is not None:
            values = values[np.isclose(IOU_THRESHOLDS, iou)]
        if category_ids is not None:
            values = values[:, :, np.isin(self.category_ids, np.asarray(category_ids, np.int64))]
        return _mean(values)

    def mean_recall(self, *, area: str = "all", max_dets: int | None = None) -> float:
        """Mean final recall over thresholds and categories; `max_dets` of COCO defaults to the largest."""
        values = self.recall[:, :, self.area_names.index(area)]
        if values.ndim == 3:
            values = values[..., self.max_dets.index(max_dets) if max_dets is not None else -1]
        return _mean(values)

    def metrics(self) -> dict[str, float]:
        """Summary metrics of the protocol; -1 where nothing is defined.

        COCO: AP, AP50, AP75, APs, APm, APl, AR@1, AR@10, AR@100, ARs@100, ARm@100, ARl@100; of keypoints AP,
        AP50, AP75, APm, APl, AR@20, ARm@20, ARl@20.
        LVIS: AP, AP50, AP75, APs, APm, APl, APr, APc, APf, AR@300, ARs@300, ARm@300, ARl@300; with a limit
        per class, for example 10000/class in the place of 300.
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


@dataclass
class ClassAP:
    """AP per class and IoU threshold, of a protocol without area ranges and detection limits.

    Attributes:
        ap: float64 (T, K); NaN for categories without ground truth.
        thresholds: float64 (T,), of the IoU. category_ids: int64 (K,) ascending.
        protocol: for example "voc". iou_type: "bbox" or "segm". area: "box" or "mask", what was compared.
        class_iou: the threshold of `per_category`; None takes the mean over all.
        num_detections: number of evaluated detections.
    """

    ap: np.ndarray
    thresholds: np.ndarray
    category_ids: np.ndarray
    protocol: str
    iou_type: str
    area: str
    class_iou: float | None
    num_detections: int

    def mean_precision(self, *, iou: float | None = None, category_ids: Sequence[int] | None = None) -> float:
        """Mean AP over thresholds (or the one `iou`) and defined categories; -1 if there is none."""
        values = self.ap if iou is None else self.ap[np.isclose(self.thresholds, iou)]
        if category_ids is not None:
            values = values[:, np.isin(self.category_ids, np.asarray(category_ids, np.int64))]
        defined = values[~np.isnan(values)]
        return float(defined.mean()) if len(defined) else -1.0

    def metrics(self) -> dict[str, float]:
        """AP (mean over IoU .5:.05:.95), AP50, AP75; -1 where nothing is defined."""
        return {
            "AP": self.mean_precision(),
            "AP50": self.mean_precision(iou=0.5),
            "AP75": self.mean_precision(iou=0.75),
        }

    def per_category(self) -> dict[int, float]:
        """AP of every category id at `class_iou`; -1 without ground truth."""
        ids = self.category_ids.tolist()
        return {k: self.mean_precision(iou=self.class_iou, category_ids=[k]) for k in ids}


def _mean(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(np.mean(defined)) if len(defined) else -1.0
