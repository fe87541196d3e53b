"""What objects are taken for, against a plain loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from maskrcnn_benchmark.evaluation import confusion as module
from maskrcnn_benchmark.evaluation.confusion import confusion_of_groups, format_confusion
from maskrcnn_benchmark.evaluation.detections import Detections

GROUPS = {"b0": [1, 2], "t0": [5], "t1": [7, 9]}


def box_iou(a: Any, b: Any) -> float:
    """IoU of two boxes x, y, width, height."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def make(seed: int, images: int = 9) -> tuple[dict[str, Any], Detections]:
    """Images with objects and detections near them or anywhere; category 8 belongs to no group."""
    rng = np.random.default_rng(seed)
    ids = [1, 2, 5, 7, 8, 9]
    data: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": i} for i in ids]}
    rows = []
    for image in range(images):
        data["images"].append({"id": 10 + image, "width": 100, "height": 100})
        for _ in range(int(rng.integers(0, 5))):
            box = [*rng.uniform(0, 60, 2), *rng.uniform(10, 40, 2)]
            data["annotations"].append(
                {
                    "id": len(data["annotations"]),
                    "image_id": 10 + image,
                    "category_id": int(rng.choice(ids)),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
            true_category = data["annotations"][-1]["category_id"]
            for _ in range(int(rng.integers(0, 4))):
                category = true_category if rng.random() < 0.5 else int(rng.choice(ids))
                rows.append((10 + image, category, rng.random(), box + rng.normal(0, 4, 4)))
    rng.shuffle(rows)
    arrays = [np.array([row[i] for row in rows]) for i in range(4)]
    return data, Detections(arrays[0], arrays[1], arrays[2], np.abs(arrays[3]))


def expected(data: dict[str, Any], detections: Detections) -> np.ndarray:
    """The counts by a loop over objects and detections."""
    group = {category: i for i, ids in enumerate(GROUPS.values()) for category in ids}
    counts = np.zeros((3, 5), np.int64)
    for annotation in data["annotations"]:
        if annotation["category_id"] not in group or annotation["iscrowd"]:
            continue
        near = [
            (-detections.scores[i], int(detections.category_ids[i]))
            for i in range(len(detections))
            if detections.image_ids[i] == annotation["image_id"]
            and int(detections.category_ids[i]) in group
            and box_iou(detections.boxes[i], annotation["bbox"]) >= 0.5
        ]
        outcome = 4
        if near:
            taken = min(near)[1]
            outcome = 0 if taken == annotation["category_id"] else 1 + group[taken]
        counts[group[annotation["category_id"]], outcome] += 1
    return counts


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("at_once", [1, 7, 4_000_000])
def test_counts(seed: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IOUS_AT_ONCE", at_once)
    data, detections = make(seed)
    result = confusion_of_groups(data, detections, GROUPS)
    np.testing.assert_array_equal(result.counts, expected(data, detections))
    assert result.counts[:, 1:4].sum() and result.counts[:, 0].sum() and result.counts[:, 4].sum()


def test_only_the_best_of_a_image_count() -> None:
    data, detections = make(1)
    limited = confusion_of_groups(data, detections, GROUPS, max_dets=2)
    np.testing.assert_array_equal(limited.counts, expected(data, detections.top_per_image(2)))


def test_nothing_found_and_nothing_there() -> None:
    data, detections = make(2)
    nothing = confusion_of_groups(data, Detections.empty(), GROUPS)
    assert nothing.counts[:, -1].sum() == nothing.counts.sum() > 0
    none = confusion_of_groups(data | {"annotations": []}, detections, GROUPS)
    assert none.counts.sum() == 0
    text = format_confusion(none)
    assert "t1" in text and "box IoU >= 0.5" in text
    assert none.to_json()["columns"] == ["recognised", "as b0", "as t0", "as t1", "missed"]
