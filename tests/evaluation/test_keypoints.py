"""Keypoint AP against pycocotools, and keypoints in results."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.evaluation.convert import boxlist_to_detections
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.protocols.coco import CocoEvaluator
from maskrcnn_benchmark.evaluation.protocols.keypoints import evaluate_keypoints
from maskrcnn_benchmark.structures import BoxList, Keypoints
from maskrcnn_benchmark.utils.errors import ConfigError, DataError


def _load_reference() -> ModuleType:
    """The module beside this file (tests have no packages)."""
    spec = importlib.util.spec_from_file_location("ap_reference", Path(__file__).with_name("reference.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ref = _load_reference()


def _dataset(seed: int, images: int = 15) -> dict[str, Any]:
    """Persons of all sizes; crowds, objects without labelled points, images without any object."""
    rng = np.random.default_rng(seed)
    data: dict[str, Any] = {
        "images": [{"id": 3 * i + 1, "width": 300, "height": 250} for i in range(images)],
        "annotations": [],
        "categories": [{"id": 1, "name": "person"}, {"id": 5, "name": "nobody"}],
    }
    for image in data["images"]:
        for _ in range(int(rng.integers(0, 7))):
            x, y, w, h = (float(v) for v in (*rng.uniform(0, 120, 2), *rng.choice([20.0, 60.0, 130.0], 2)))
            points = np.column_stack((rng.uniform(x, x + w, 17), rng.uniform(y, y + h, 17)))
            visible = rng.choice([0, 1, 2], 17, p=[0.4, 0.2, 0.4]) * (rng.random() < 0.8)
            points[visible == 0] = 0
            data["annotations"].append(
                {
                    "id": len(data["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": 1,
                    "bbox": [x, y, w, h],
                    "area": float(w * h * rng.choice([0.4, 1.0])) if rng.random() > 0.05 else 0.0,
                    "iscrowd": int(rng.random() < 0.1),
                    "keypoints": np.column_stack((points.round(1), visible)).reshape(-1).tolist(),
                    "num_keypoints": int((visible > 0).sum()),
                }
            )
    return data


def _results(data: dict[str, Any], seed: int, per_image: int = 30) -> list[dict[str, Any]]:
    """Points near the objects and far from them, with tied scores; more than counts in one image."""
    rng = np.random.default_rng(seed)
    rows = []
    for image in data["images"]:
        near = [a for a in data["annotations"] if a["image_id"] == image["id"]]
        for _ in range(int(rng.integers(0, per_image))):
            points = rng.uniform(0, 250, (17, 2))
            if near and rng.random() < 0.8:
                known = np.array(near[int(rng.integers(len(near)))]["keypoints"]).reshape(17, 3)
                points = known[:, :2] + rng.normal(0, rng.choice([0.0, 2.0, 8.0]), (17, 2))
            rows.append(
                {
                    "image_id": image["id"],
                    "category_id": 1,
                    "score": float(np.round(rng.random(), 2)),
                    "keypoints": np.column_stack((points, np.ones(17))).reshape(-1).tolist(),
                }
            )
    return rows


@pytest.mark.parametrize("seed", range(6))
def test_arrays_equal_pycocotools(seed: int) -> None:
    data = _dataset(seed)
    rows = _results(data, seed)
    ours = evaluate_keypoints(data, Detections.from_json(rows))
    theirs = ref.run_pycocotools(data, rows, "keypoints")
    assert np.array_equal(ours.precision, theirs.eval["precision"])
    assert np.array_equal(ours.recall, theirs.eval["recall"])
    metrics = ours.metrics()
    names = ("AP", "AP50", "AP75", "APm", "APl")
    assert [metrics[name] for name in names] == pytest.approx(theirs.stats[:5].tolist(), abs=1e-12)
    sizes = [metrics[name] for name in ("AR@20", "ARm@20", "ARl@20")]
    assert sizes == pytest.approx(theirs.stats[[5, 8, 9]].tolist(), abs=1e-12)
    assert set(metrics) == {*names, "AR@20", "ARm@20", "ARl@20"}


def test_perfect_and_empty() -> None:
    data = _dataset(0)
    rows = [
        {"image_id": a["image_id"], "category_id": 1, "score": 0.5, "keypoints": a["keypoints"]}
        for a in data["annotations"]
        if a["num_keypoints"] and not a["iscrowd"]
    ]
    assert evaluate_keypoints(data, Detections.from_json(rows)).metrics()["AP"] == pytest.approx(1)
    assert evaluate_keypoints(data, Detections.empty()).metrics()["AP"] == 0
    nothing = data | {"annotations": []}
    assert evaluate_keypoints(nothing, Detections.empty()).metrics()["AP"] == -1


def test_other_keypoints_need_their_sigmas() -> None:
    data = _dataset(1)
    for annotation in data["annotations"]:
        annotation["keypoints"] = annotation["keypoints"][:6]
    detections = Detections.from_json(
        [{"image_id": 1, "category_id": 1, "score": 1.0, "keypoints": [1.0, 2.0, 1.0, 3.0, 4.0, 1.0]}]
    )
    with pytest.raises(ConfigError, match=r"2 keypoints.*TEST\.KEYPOINT_OKS_SIGMAS"):
        evaluate_keypoints(data, detections)
    assert evaluate_keypoints(data, detections, (0.05, 0.1)).num_detections == 1
    with pytest.raises(ConfigError, match="2 keypoints, but there are 3"):
        evaluate_keypoints(data | {"annotations": []}, detections, (0.1, 0.1, 0.1))
    boxes = Detections(np.array([1]), np.array([1]), np.array([0.5]), np.zeros((1, 4)))
    with pytest.raises(DataError, match="keypoints in every detection"):
        evaluate_keypoints(data, boxes, (0.05, 0.1))


def test_results_keep_keypoints() -> None:
    rows = _results(_dataset(2), 2)[:5]
    detections = Detections.from_json(rows)
    assert detections.keypoints is not None and detections.keypoints.shape == (5, 17, 3)
    low, high = detections.keypoints[:, :, :2].min(1), detections.keypoints[:, :, :2].max(1)
    assert np.array_equal(detections.boxes, np.hstack([low, high - low]))
    again = Detections.from_json(detections.to_json())
    assert np.array_equal(again.keypoints, detections.keypoints)
    both = Detections.concatenate([detections.select(np.array([3, 1])), Detections.empty(), detections])
    assert np.array_equal(Detections.from_columns(both.columns()).keypoints[:2], detections.keypoints[[3, 1]])
    del rows[2]["keypoints"]
    rows[2]["bbox"] = [0, 0, 1, 1]
    with pytest.raises(DataError, match="give every entry keypoints"):
        Detections.from_json(rows)


def _prediction(factor: float) -> BoxList:
    """The keypoints of one object at `factor` times the image's size."""
    detections = BoxList([[10.0, 10.0, 60.0, 60.0]], (300, 250)).resize(
        (int(300 * factor), int(250 * factor))
    )
    detections.add_field("scores", torch.tensor([0.9]))
    detections.add_field("labels", torch.tensor([1]))
    points = torch.cat((torch.linspace(10, 60, 34).reshape(1, 17, 2), torch.ones(1, 17, 1)), dim=2)
    points[..., :2] *= factor
    detections.add_field("keypoints", Keypoints(points, detections.size, range(17)))
    return detections


def test_evaluator_from_predictions() -> None:
    converted = boxlist_to_detections(_prediction(2.0), 1, (300, 250), [0, 1])
    points = converted.keypoints
    assert points is not None and points[0, 0] == pytest.approx([10, 10 + 50 / 33, 1], abs=1e-5)
    data = _dataset(3, images=2)
    data["annotations"] = [
        data["annotations"][0]
        | {"image_id": 1, "keypoints": points.reshape(-1).tolist(), "num_keypoints": 17, "iscrowd": 0}
        | {"bbox": [10, 10, 51, 51], "area": 2000.0}
    ]
    evaluator = CocoEvaluator(data, [0, 1, 5], ("bbox", "keypoints"))
    evaluator.reset()
    evaluator.process([1], [_prediction(2.0)])
    report = evaluator.evaluate()
    assert report.metrics["keypoints/AP"] == pytest.approx(1) and report.metrics["bbox/AP"] == pytest.approx(
        1
    )
    assert report.tasks["keypoints"].area == "keypoints"
