"""Check of average precision by the rules of Pascal VOC on made-up boxes."""

from __future__ import annotations

from typing import Any

import numpy as np

from checks.checker import Checker
from checks.core.inputs import Components
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.protocols.voc import evaluate_voc


def check_voc(ctx: Components, checker: Checker) -> None:
    """AP at IoU .5 of every class and their mean, by every metric listed; undefined values are null."""
    info = ctx.info["voc"]
    images = sum(name.startswith("gt") for name in ctx.names("voc"))
    annotations: list[dict[str, Any]] = []
    detections = []
    for image in range(images):
        truth = _xywh(ctx.arrays[f"voc.gt{image}"])
        for box, label, hard in zip(truth.tolist(), info["gt_labels"], info["difficult"], strict=True):
            record = {"id": len(annotations) + 1, "image_id": image, "category_id": label, "bbox": box}
            annotations.append(record | {"area": box[2] * box[3], "ignore": hard})
        scores = ctx.arrays[f"voc.score{image}"]
        boxes = _xywh(ctx.arrays[f"voc.pred{image}"])
        detections.append(Detections(np.full(len(boxes), image), info["pred_labels"], scores, boxes))
    for expected in info["results"]:
        metric = "11point" if expected["use_07_metric"] else "area"
        classes = list(range(1, len(expected["ap"])))
        dataset = {
            "images": [{"id": image} for image in range(images)],
            "annotations": annotations,
            "categories": [{"id": label} for label in classes],
        }
        result = evaluate_voc(dataset, Detections.concatenate(detections), metric=metric)
        values = result.per_category()
        expected_ap = [-1.0 if value is None else value for value in expected["ap"][1:]]
        checker.values(f"{metric}.ap", [values[label] for label in classes], expected_ap, 1e-12)
        checker.values(f"{metric}.map", [result.metrics()["AP50"]], [expected["map"]], 1e-12)


def _xywh(boxes: np.ndarray) -> np.ndarray:
    """x, y, width, height of corners (N, 4) that are both inside."""
    wide = boxes.astype(np.float64)
    return np.concatenate([wide[:, :2], wide[:, 2:] - wide[:, :2] + 1], axis=1)
