"""From predicted BoxLists to reports: conversion, gathering, files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_utils

from maskrcnn_benchmark.evaluation import collect, convert
from maskrcnn_benchmark.evaluation.base import EVALUATORS
from maskrcnn_benchmark.evaluation.convert import boxlist_to_detections
from maskrcnn_benchmark.evaluation.protocols.coco import CocoEvaluator
from maskrcnn_benchmark.evaluation.protocols.lvis import LvisEvaluator
from maskrcnn_benchmark.evaluation.protocols.voc import VocEvaluator
from maskrcnn_benchmark.evaluation.report import format_evaluation, write_report
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.errors import ConfigError, DataError

# boxes of two objects in an image of 40 x 20 pixels, inclusive corners
OBJECTS = [[2.0, 3.0, 11.0, 12.0], [20.0, 5.0, 35.0, 16.0]]


def _dataset() -> dict[str, Any]:
    images, annotations = [], []
    for image_id in (7, 3, 5):
        images.append(
            {
                "id": image_id,
                "width": 40,
                "height": 20,
                "neg_category_ids": [90],
                "not_exhaustive_category_ids": [],
            }
        )
        for number, (x1, y1, x2, y2) in enumerate(OBJECTS):
            w, h = x2 - x1 + 1, y2 - y1 + 1
            shape = [[x1, y1, x1 + w, y1, x1 + w, y1 + h, x1, y1 + h]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": (50, 20)[number],
                    "bbox": [x1, y1, w, h],
                    "area": w * h,
                    "segmentation": shape,
                }
            )
    categories = [
        {"id": 20, "name": "cup", "frequency": "r", "step_state": "t0"},
        {"id": 50, "name": "dog", "frequency": "f", "step_state": "b0"},
        {"id": 90, "name": "tie", "frequency": "r", "step_state": "t0"},
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def _prediction(scale: float = 1.0, masks: bool = True, labels: tuple[int, ...] = (2, 1)) -> BoxList:
    """Perfect boxes at `scale` times the original size; the masks fill them."""
    boxes = BoxList(torch.tensor(OBJECTS), (40, 20)).resize((int(40 * scale), int(20 * scale)))
    boxes.add_field("scores", torch.tensor([0.9, 0.8]))
    boxes.add_field("labels", torch.tensor(labels))
    if masks:
        boxes.add_field("mask", torch.ones(2, 1, 28, 28))
    return boxes


# label 1 is category 20, label 2 is category 50
ORDER = [0, 20, 50]


@pytest.mark.parametrize("protocol", ["coco", "lvis"])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_perfect_predictions(protocol: str, scale: float) -> None:
    evaluator = EVALUATORS.get(protocol)(_dataset(), ORDER, ("bbox", "segm"))
    evaluator.process([3, 5], [_prediction(scale), _prediction(scale)])
    evaluator.process([7], [_prediction(scale)])
    report = evaluator.evaluate()
    assert report.metrics["bbox/AP50"] == pytest.approx(1.0)
    assert report.metrics["segm/AP50"] == pytest.approx(1.0)
    assert report.tasks["bbox"].per_category[90] == -1.0
    assert report.detections.image_ids.tolist() == [3, 3, 5, 5, 7, 7]
    assert report.tasks["segm"].area == ("mask" if protocol == "coco" else "box")


def test_the_weak_are_forgotten_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    predictions = []
    for _ in range(60):
        boxes = _prediction(masks=False)
        boxes.add_field("scores", torch.from_numpy(rng.random(2)).float())
        predictions.append(boxes)
    data = _dataset()
    data["images"] = [dict(data["images"][0], id=image) for image in range(60)]
    data["annotations"] = [dict(data["annotations"][0], id=image + 1, image_id=image) for image in range(60)]
    monkeypatch.setattr(collect, "SHARD_DETECTIONS", 10)
    held = []
    evaluator = LvisEvaluator(data, ORDER, fixed_limit=7)
    for image, boxes in enumerate(predictions):
        evaluator.process([image], [boxes])
        held.append(len(evaluator._collector))
    assert max(held) <= 30 and held[-1] < 30
    report = evaluator.evaluate()
    every = LvisEvaluator(data, ORDER, fixed_limit=7)
    monkeypatch.setattr(collect, "SHARD_DETECTIONS", 10_000)
    every.process(list(range(60)), predictions)
    assert every.evaluate().metrics == report.metrics and "bbox/AR@7/class" in report.metrics
    assert report.metrics != LvisEvaluator(data, ORDER).evaluate().metrics


def test_label_order_matters() -> None:
    evaluator = CocoEvaluator(_dataset(), [0, 50, 20])
    evaluator.process([3], [_prediction(masks=False)])
    assert evaluator.evaluate().metrics["bbox/AP"] == 0.0


def test_groups() -> None:
    evaluator = LvisEvaluator(_dataset(), ORDER, groups={"mine": [20, 50], "nothing": [90]})
    evaluator.process([3, 5, 7], [_prediction(masks=False)[:1] for _ in range(3)])
    groups = evaluator.evaluate().tasks["bbox"].groups
    assert groups["b0"] == groups["frequent"] == pytest.approx(1.0)
    assert groups["t0"] == groups["rare"] == 0.0
    assert groups["mine"] == pytest.approx(0.5)
    assert groups["nothing"] == -1.0
    assert groups["common"] == -1.0


def test_converted_boxes_and_masks() -> None:
    detections = boxlist_to_detections(_prediction(2.0), 5, (40, 20), ORDER)
    assert detections.category_ids.tolist() == [50, 20]
    assert detections.image_ids.tolist() == [5, 5]
    # inclusive width of the box scaled back: x2 - x1 + 1
    np.testing.assert_allclose(detections.boxes[0], [2, 3, 10, 10], atol=1e-5)
    assert detections.rles is not None
    bitmap = mask_utils.decode(detections.rles[0])
    assert bitmap.shape == (20, 40)
    ys, xs = np.nonzero(bitmap)
    # pasting cuts the grown box to whole pixels, so the edge may lie one pixel off
    edges = np.array([xs.min(), xs.max(), ys.min(), ys.max()])
    assert np.abs(edges - [2, 11, 3, 12]).max() <= 1


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = boxlist_to_detections(_prediction(), 5, (40, 20), ORDER).to_json()
    monkeypatch.setattr(convert, "PIXELS_PER_CHUNK", 1)
    assert boxlist_to_detections(_prediction(), 5, (40, 20), ORDER).to_json() == whole


def test_masks_of_the_original_size_are_taken_as_they_are() -> None:
    bitmaps = torch.zeros(2, 1, 20, 40, dtype=torch.bool)
    bitmaps[0, 0, 4:9, 1:3] = True
    prediction = _prediction(masks=False)
    prediction.add_field("mask", bitmaps)
    detections = boxlist_to_detections(prediction, 5, (40, 20), ORDER)
    assert detections.rles is not None
    np.testing.assert_array_equal(mask_utils.decode(detections.rles[0]), bitmaps[0, 0].numpy())
    assert mask_utils.area(detections.rles[1]) == 0


def test_empty_prediction_and_no_prediction_at_all() -> None:
    evaluator = LvisEvaluator(_dataset(), ORDER, ("bbox", "segm"))
    assert evaluator.evaluate().metrics["segm/AP"] == 0.0
    evaluator.process([3], [_prediction()[:0]])
    assert evaluator.evaluate().metrics["segm/AP"] == 0.0
    evaluator.process([5], [_prediction()])
    assert evaluator.evaluate().metrics["segm/AP"] > 0
    evaluator.reset()
    assert len(evaluator.evaluate().detections) == 0


def test_errors() -> None:
    with pytest.raises(ConfigError, match="unknown evaluator 'yolo'"):
        EVALUATORS.get("yolo")
    with pytest.raises(DataError, match="the voc protocol cannot evaluate segm; it has bbox"):
        VocEvaluator(_dataset(), ORDER, ("bbox", "segm"))
    evaluator = CocoEvaluator(_dataset(), ORDER)
    with pytest.raises(DataError, match="image id 4"):
        evaluator.process([4], [_prediction()])


def test_report_files_and_text(tmp_path: Path) -> None:
    evaluator = LvisEvaluator(_dataset(), ORDER, ("bbox", "segm"))
    evaluator.process([3, 5, 7], [_prediction()] * 3)
    report = evaluator.evaluate()
    write_report(report, tmp_path / "out", detections_name="lvis_dt.json")
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["tasks"]["segm"]["detection_area"] == "box"
    assert content["tasks"]["bbox"]["per_category"]["90"] == -1.0
    rows = list(csv.reader((tmp_path / "out" / "per_class.csv").open()))
    assert rows[0] == ["category_id", "name", "bbox_AP", "segm_AP"]
    assert rows[-1] == ["90", "tie", "", ""]
    results = json.loads((tmp_path / "out" / "lvis_dt.json").read_text())
    assert len(results) == 6 and set(results[0]) == {
        "image_id",
        "category_id",
        "bbox",
        "score",
        "segmentation",
    }
    text = format_evaluation(report, per_class=True)
    assert "LVIS evaluation: 3 images, 6 detections; segm area of detections: box" in text
    assert "AP t0" in text and "tie" in text and "APr" in text
