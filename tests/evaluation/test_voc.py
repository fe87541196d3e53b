"""evaluation.voc: AP of boxes against a plain loop over detections, and the files of results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.protocols.voc import VocEvaluator, evaluate_voc, write_voc_files
from maskrcnn_benchmark.utils.errors import DataError


def _data(seed: int) -> tuple[dict[str, Any], Detections]:
    """Images with objects of three classes, the last without any that counts; coarse scores and boxes."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    rows: list[tuple[int, int, float, list[float]]] = []
    for image in range(8):
        for _ in range(int(rng.integers(0, 6))):
            box = [float(v) for v in (*rng.integers(0, 40, 2), *rng.choice([10, 20, 30], 2))]
            label = int(rng.integers(1, 4))
            record = {"id": len(annotations) + 1, "image_id": image, "category_id": label, "bbox": box}
            hard = int(label == 3 or rng.random() < 0.2)
            annotations.append(record | {"area": box[2] * box[3], "ignore": hard})
            for _ in range(int(rng.integers(0, 4))):
                near = [float(v) for v in np.maximum(np.array(box) + rng.integers(-3, 4, 4), 1)]
                rows.append((image, label, float(np.round(rng.random(), 1)), near))
        rows.append((image, int(rng.integers(1, 4)), float(np.round(rng.random(), 1)), [30.0, 30, 9, 9]))
    order = rng.permutation(len(rows))
    rows = sorted((rows[i] for i in order), key=lambda row: row[0])
    dataset = {
        "images": [{"id": i, "file_name": f"p{i}.jpg", "width": 80, "height": 80} for i in range(8)],
        "annotations": annotations,
        "categories": [{"id": k, "name": f"class{k}"} for k in (1, 2, 3)],
    }
    columns = list(zip(*rows, strict=True))
    return dataset, Detections(*(np.array(column) for column in columns))


def _iou(one: np.ndarray, other: list[float]) -> float:
    left, top = max(one[0], other[0]), max(one[1], other[1])
    right, bottom = min(one[0] + one[2], other[0] + other[2]), min(one[1] + one[3], other[1] + other[3])
    shared = max(0.0, right - left) * max(0.0, bottom - top)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def _plain_ap(
    dataset: dict[str, Any], detections: Detections, label: int, threshold: float, metric: str
) -> float:
    """AP by the text of the development kit, one detection after the other."""
    of_class = [i for i in range(len(detections)) if detections.category_ids[i] == label]
    of_class.sort(key=lambda i: -detections.scores[i])
    truth = [a for a in dataset["annotations"] if a["category_id"] == label]
    objects = sum(not a["ignore"] for a in truth)
    if not objects:
        return -1.0
    taken: set[int] = set()
    right = wrong = 0
    curve = []
    for i in of_class:
        best, which = 0.0, None
        for record in truth:
            iou = _iou(detections.boxes[i], record["bbox"])
            if record["image_id"] == detections.image_ids[i] and iou > best:
                best, which = iou, record
        if which is not None and best >= threshold:
            if not which["ignore"]:
                right, wrong = right + (which["id"] not in taken), wrong + (which["id"] in taken)
                taken.add(which["id"])
        else:
            wrong += 1
        if right + wrong:
            curve.append((right / objects, right / (right + wrong)))
    if metric == "11point":
        levels = np.arange(0.0, 1.1, 0.1)
        return sum(max([p for r, p in curve if r >= level], default=0.0) for level in levels) / 11
    total, before = 0.0, 0.0
    for recall in sorted({r for r, _ in curve}):
        total += (recall - before) * max(p for r, p in curve if r >= recall)
        before = recall
    return total


@pytest.mark.parametrize("metric", ["11point", "area"])
@pytest.mark.parametrize("seed", range(6))
def test_equals_a_plain_loop(seed: int, metric: str) -> None:
    dataset, detections = _data(seed)
    result = evaluate_voc(dataset, detections, metric=metric)
    for row in (0, 3, 7):
        for place, label in enumerate(result.category_ids.tolist()):
            expected = _plain_ap(dataset, detections, label, float(result.thresholds[row]), metric)
            got = result.ap[row, place]
            assert (np.isnan(got) and expected == -1.0) or got == pytest.approx(expected, abs=1e-12)
    assert result.per_category()[1] == pytest.approx(
        _plain_ap(dataset, detections, 1, 0.5, metric), abs=1e-12
    )
    defined = [v for v in result.per_category().values() if v >= 0]
    assert result.metrics()["AP50"] == pytest.approx(np.mean(defined))
    assert result.metrics()["AP"] <= result.metrics()["AP50"]


def _one(boxes: list[list[float]], scores: list[float], hard: int = 0) -> float:
    """AP50 on one image with one object of 10 x 10 pixels, which may be difficult, and one far away."""
    truth = [([0.0, 0, 10, 10], hard), ([50.0, 50, 10, 10], 0)]
    dataset = {
        "images": [{"id": 1, "width": 80, "height": 80}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": box, "area": 100.0, "ignore": flag}
            for n, (box, flag) in enumerate(truth)
        ],
        "categories": [{"id": 1, "name": "a"}],
    }
    detections = Detections(np.ones(len(boxes)), np.ones(len(boxes)), np.array(scores), np.array(boxes))
    return evaluate_voc(dataset, detections, metric="area").metrics()["AP50"]


def test_rules() -> None:
    near, far = [0.0, 0, 10, 10], [50.0, 50, 10, 10]
    assert _one([near, far], [0.9, 0.8]) == 1.0
    # an IoU of exactly one half is enough
    assert _one([[0.0, 0, 10, 5], far], [0.9, 0.8]) == 1.0
    assert _one([[0.0, 0, 10, 4.9], far], [0.9, 0.8]) == pytest.approx(0.25)
    # a second detection of an object is wrong, of a difficult one it is not
    assert _one([near, near, far], [0.9, 0.85, 0.8]) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert _one([near, near, far], [0.9, 0.85, 0.8], hard=1) == 1.0
    # a difficult object need not be found
    assert _one([far], [0.1], hard=1) == 1.0
    assert _one([], []) == 0.0


def test_eleven_points_of_a_class_that_is_half_found() -> None:
    dataset, _ = _data(0)
    dataset["annotations"] = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "ignore": 0}
        for n in range(2)
    ]
    detections = Detections(np.zeros(1), np.ones(1), np.ones(1), np.array([[0.0, 0, 10, 10]]))
    assert evaluate_voc(dataset, detections).metrics()["AP50"] == pytest.approx(6 / 11)
    assert evaluate_voc(dataset, detections, metric="area").metrics()["AP50"] == pytest.approx(0.5)
    assert evaluate_voc(dataset, Detections.empty()).metrics()["AP50"] == 0.0
    with pytest.raises(DataError, match="metric '10point' is unknown; expected 11point or area"):
        evaluate_voc(dataset, detections, metric="10point")


def test_many_detections() -> None:
    rng = np.random.default_rng(0)
    dataset, _ = _data(1)
    count = 200_000
    boxes = np.concatenate([rng.integers(0, 40, (count, 2)), rng.integers(5, 30, (count, 2))], axis=1)
    detections = Detections(rng.integers(0, 8, count), rng.integers(1, 4, count), rng.random(count), boxes)
    assert 0 < evaluate_voc(dataset, detections).metrics()["AP50"] < 1


def test_evaluator_and_files(tmp_path: Path) -> None:
    dataset, detections = _data(2)
    evaluators = {
        metric: VocEvaluator(dataset, [0, 1, 2, 3], metric=metric) for metric in ("11point", "area")
    }
    reports = {metric: evaluator.evaluate_detections(detections) for metric, evaluator in evaluators.items()}
    assert reports["11point"].metrics["bbox/AP50"] != reports["area"].metrics["bbox/AP50"]
    report = reports["area"]
    folder = tmp_path / "voc_2007_val"
    write_voc_files(report, dataset["images"], folder)
    lines = (folder / "result.txt").read_text().splitlines()
    assert lines[0] == f"mAP             : {report.metrics['bbox/AP50']:.4f}"
    assert lines[1].startswith("class1") and lines[3] == "class3          : -"
    rows = (folder / "Main" / "comp4_det_val_class1.txt").read_text().splitlines()
    of_class = np.flatnonzero(detections.category_ids == 1)
    assert len(rows) == len(of_class)
    x, y, w, h = detections.boxes[of_class[0]]
    image_id, score = detections.image_ids[of_class[0]], detections.scores[of_class[0]]
    assert rows[0] == f"p{image_id} {score:.6f} {x + 1:.1f} {y + 1:.1f} {x + w:.1f} {y + h:.1f}"
