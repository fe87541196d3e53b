"""AP per class and IoU threshold: the result of protocols without area ranges and detection limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class ClassAP:
    """One evaluation by the Pascal VOC or the Cityscapes protocol.

    Attributes:
        ap: float64 (T, K); NaN for categories without ground truth.
        thresholds: float64 (T,), of the IoU. category_ids: int64 (K,) ascending.
        protocol: "voc" or "cityscapes". iou_type: "bbox" or "segm". area: "box" or "mask", what was compared.
        class_iou: the threshold of `per_category`; None takes the mean over all.
        num_detections: how many were judged.
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
