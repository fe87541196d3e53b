"""Average recall of proposals against a plain loop over images."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.protocols.proposals import ProposalEvaluator, average_recall
from maskrcnn_benchmark.structures import BoxList, box_iou


def _load_reference() -> ModuleType:
    """The module beside this file (tests have no packages)."""
    spec = importlib.util.spec_from_file_location("ap_reference", Path(__file__).with_name("reference.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ref = _load_reference()

RANGES = {"": (0, 1e10), "s": (0, 1024), "m": (1024, 9216), "l": (9216, 1e10)}


def _corners(boxes: list[list[float]]) -> torch.Tensor:
    """xyxy of x, y, width, height in the inclusive convention."""
    return BoxList(torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4), (1, 1), "xywh").xyxy()


def _plain(data: dict[str, Any], rows: list[dict[str, Any]], limit: int, area: tuple[float, float]) -> float:
    """The definition, image by image, on float64 boxes."""
    best: list[float] = []
    for image in data["images"]:
        objects = [a for a in data["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        objects = [a for a in objects if area[0] <= a["area"] <= area[1]]
        of_image = sorted((r for r in rows if r["image_id"] == image["id"]), key=lambda r: -r["score"])[
            :limit
        ]
        ious = box_iou(_corners([r["bbox"] for r in of_image]), _corners([a["bbox"] for a in objects]))
        covered = [0.0] * len(objects)
        for step in range(min(ious.shape)):
            place = int(ious.argmax())
            row, column = divmod(place, ious.shape[1])
            covered[step] = float(ious[row, column])
            ious[row] = -1
            ious[:, column] = -1
        best += covered
    thresholds = np.linspace(0.5, 0.95, 10)
    return float(np.mean([(np.array(best) >= t).mean() for t in thresholds])) if best else -1.0


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_plain_loop(seed: int) -> None:
    data = ref.random_dataset(seed, images=8, crowd=True)
    rows = ref.random_results(data, seed, per_image=160, digits=6)
    metrics = average_recall(data, Detections.from_json(rows))
    for name, area in RANGES.items():
        for limit in (100, 1000):
            assert metrics[f"AR{name}@{limit}"] == pytest.approx(_plain(data, rows, limit, area), abs=1e-12)
    assert metrics["AR@1000"] >= metrics["AR@100"] > 0


def test_nothing_found_and_nothing_to_find() -> None:
    data = ref.random_dataset(0)
    assert average_recall(data, Detections.empty())["AR@100"] == 0
    assert set(average_recall(data | {"annotations": []}, Detections.empty()).values()) == {-1.0}


def test_one_proposal_serves_one_object() -> None:
    """Two equal objects under one proposal: half of them are found, at every threshold."""
    data = ref.random_dataset(0, images=1)
    image = data["images"][0]["id"]
    entry = {"image_id": image, "category_id": data["categories"][0]["id"], "iscrowd": 0, "area": 2000.0}
    data["annotations"] = [entry | {"id": i, "bbox": [10.0, 10.0, 40.0, 50.0]} for i in (1, 2)]
    evaluator = ProposalEvaluator(data)
    evaluator.reset()
    proposals = BoxList([[20.0, 20.0, 99.0, 119.0]], (320, 240))
    proposals.add_field("objectness", torch.tensor([0.7]))
    evaluator.process([image], [proposals])
    report = evaluator.evaluate()
    assert report.metrics["box_proposal/AR@100"] == 0.5 and report.metrics["box_proposal/ARm@1000"] == 0.5
    assert report.metrics["box_proposal/ARs@100"] == -1
    assert len(report.detections) == 1
