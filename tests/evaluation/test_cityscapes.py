"""evaluation.cityscapes against loops over decoded masks that follow the rules word by word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.protocols.cityscapes import (
    MIN_REGION,
    THRESHOLDS,
    CityscapesEvaluator,
    evaluate_cityscapes,
)

H, W = 60, 80
LABELS = (24, 26, 33)


def _encode(mask: np.ndarray) -> dict[str, Any]:
    rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [H, W], "counts": rle["counts"].decode()}


def _bitmap(box: np.ndarray) -> np.ndarray:
    x, y, w, h = (int(v) for v in box)
    mask = np.zeros((H, W), bool)
    mask[max(y, 0) : y + h, max(x, 0) : x + w] = True
    return mask


def _data(seed: int, exclusive: bool) -> tuple[dict[str, Any], Detections]:
    """Rectangles of all sizes, some of them groups, a void corner; coarse scores make many ties."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    rows: list[dict[str, Any]] = []
    for image in range(6):
        boxes = np.concatenate([rng.integers(0, 50, (7, 2)), rng.choice([6, 9, 12, 24, 30], (7, 2))], axis=1)
        labels = rng.choice(LABELS[:2], 7)
        masks = [_bitmap(box) for box in boxes]
        void = _bitmap(np.array([0, 0, rng.integers(10, 40), rng.integers(10, 40)]))
        if exclusive:
            for later in range(7, 0, -1):
                front = masks[later] if later < 7 else void
                masks[:later] = [mask & ~front for mask in masks[:later]]
        image_record = {"id": image, "width": W, "height": H}
        images.append(image_record | ({"void": _encode(void)} if image % 3 else {}))
        for box, label, mask in zip(boxes, labels, masks, strict=True):
            group = int(rng.random() < 0.25)
            record = {"id": len(annotations) + 1, "image_id": image, "category_id": int(label)}
            shape = {"bbox": [float(v) for v in box], "segmentation": _encode(mask), "area": 1.0}
            if mask.any():
                annotations.append(record | shape | {"iscrowd": group})
            for _ in range(int(rng.integers(0, 4))):
                moved = np.append(
                    box[:2] + rng.integers(-4, 5, 2), np.maximum(box[2:] + rng.integers(-4, 5, 2), 1)
                )
                rows.append({"image_id": image, "category_id": int(rng.choice([label, label, LABELS[2]]))})
                rows[-1] |= {"score": float(np.round(rng.random(), 1)), "bbox": [float(v) for v in moved]}
                rows[-1] |= {"segmentation": _encode(_bitmap(moved))}
    categories = [{"id": label, "name": str(label)} for label in LABELS]
    dataset = {"images": images, "annotations": annotations, "categories": categories}
    return dataset, Detections.from_json([rows[i] for i in rng.permutation(len(rows))])


class _Shapes:
    """Areas and intersections in pixels of masks, or of boxes."""

    def __init__(self, by_mask: bool) -> None:
        self.by_mask = by_mask

    def area(self, record: dict[str, Any]) -> float:
        if self.by_mask:
            return float(mask_utils.decode(record["segmentation"]).sum())
        return record["bbox"][2] * record["bbox"][3]

    def shared(self, one: dict[str, Any], other: dict[str, Any]) -> float:
        if self.by_mask:
            both = (mask_utils.decode(r["segmentation"]).astype(bool) for r in (one, other))
            return float(np.logical_and(*both).sum())
        (a, b, c, d), (e, f, g, h) = one["bbox"], other["bbox"]
        return max(0.0, min(a + c, e + g) - max(a, e)) * max(0.0, min(b + d, f + h) - max(b, f))


def _plain_ap(
    dataset: dict[str, Any], rows: list[dict[str, Any]], label: int, threshold: float, by_mask: bool
) -> float:
    """AP of one class: every image by itself, then one curve; NaN without objects."""
    shapes = _Shapes(by_mask)
    truths, flags, missed, objects, predictions = [], [], 0, 0, 0
    for image in dataset["images"]:
        truth = [
            a for a in dataset["annotations"] if (a["image_id"], a["category_id"]) == (image["id"], label)
        ]
        detections = [r for r in rows if (r["image_id"], r["category_id"]) == (image["id"], label)]
        detections = [r for r in detections if shapes.area(r) > 0]
        predictions += len(detections)

        def iou(row: dict[str, Any], record: dict[str, Any]) -> float:
            shared = shapes.shared(row, record)
            return shared / (shapes.area(row) + shapes.area(record) - shared)

        counted = [a for a in truth if not a["iscrowd"] and shapes.area(a) >= MIN_REGION]
        objects += len(counted)
        for record in counted:
            scores = sorted((r["score"] for r in detections if iou(r, record) > threshold), reverse=True)
            missed += not scores
            truths += scores
            flags += [True, *[False] * (len(scores) - 1)][: len(scores)]
        for row in detections:
            if any(iou(row, record) > threshold for record in truth):
                continue
            ignored = (
                shapes.shared(row, {"segmentation": image["void"]}) if by_mask and "void" in image else 0.0
            )
            for record in truth:
                ignored += shapes.shared(row, record) * (
                    bool(record["iscrowd"]) + (shapes.area(record) < MIN_REGION)
                )
            if ignored / shapes.area(row) <= threshold:
                truths.append(row["score"])
                flags.append(False)
    if not objects:
        return float("nan")
    if not truths:
        return 0.0
    points = []
    for least in sorted(set(truths)):
        kept = [flag for score, flag in zip(truths, flags, strict=True) if score >= least]
        points.append((sum(kept) / (sum(flags) + missed), sum(kept) / len(kept)))
    points.append((0.0, 1.0))
    recalls = [points[0][0], *(r for r, _ in points), 0.0]
    return sum((recalls[i] - recalls[i + 2]) / 2 * points[i][1] for i in range(len(points)))


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize(("seed", "exclusive"), [(0, True), (1, True), (2, True), (3, False)])
def test_equals_plain_loops(seed: int, exclusive: bool, iou_type: str) -> None:
    dataset, detections = _data(seed, exclusive)
    result = evaluate_cityscapes(dataset, detections, iou_type)
    rows = detections.to_json()
    for place, label in enumerate(LABELS):
        for step in (0, 1, 4, 9):
            expected = _plain_ap(dataset, rows, label, THRESHOLDS[step], iou_type == "segm")
            np.testing.assert_allclose(result.ap[step, place], expected, atol=1e-12)
    assert np.isnan(result.ap[:, 2]).all() and not np.isnan(result.ap[:, :2]).any()
    assert result.metrics()["AP"] == pytest.approx(result.ap[:, :2].mean())
    assert result.per_category()[33] == -1.0
    assert result.per_category()[24] == pytest.approx(result.ap[:, 0].mean())


def _scene(**more: Any) -> dict[str, Any]:
    """One image with a car of 20 x 20 pixels, a group of persons and a small person."""

    def record(number: int, label: int, box: list[int], **flags: Any) -> dict[str, Any]:
        shape = {
            "bbox": [float(v) for v in box],
            "segmentation": _encode(_bitmap(np.array(box))),
            "area": 1.0,
        }
        return {"id": number, "image_id": 1, "category_id": label} | shape | flags

    return {
        "images": [{"id": 1, "width": W, "height": H} | more],
        "annotations": [
            record(1, 26, [0, 0, 20, 20]),
            record(2, 24, [40, 0, 20, 20], iscrowd=1),
            record(3, 24, [0, 40, 9, 9]),
            record(4, 24, [40, 40, 12, 12]),
        ],
        "categories": [{"id": 24, "name": "person"}, {"id": 26, "name": "car"}],
    }


def _found(*rows: tuple[int, float, list[int]]) -> Detections:
    return Detections.from_json(
        [
            {"image_id": 1, "category_id": c, "score": s, "segmentation": _encode(_bitmap(np.array(b)))}
            for c, s, b in rows
        ]
    )


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_rules(iou_type: str) -> None:
    def ap50(label: int, *rows: tuple[int, float, list[int]], **more: Any) -> float:
        result = evaluate_cityscapes(_scene(**more), _found(*rows), iou_type)
        return result.mean_precision(iou=0.5, category_ids=[label])

    car, person = (26, 0.9, [0, 0, 20, 20]), (24, 0.8, [40, 40, 12, 12])
    assert ap50(26, car) == 1.0 and ap50(24, person) == 1.0
    # one half is not enough: the IoU must be larger
    assert ap50(26, (26, 0.9, [0, 0, 20, 10])) == 0.0
    assert ap50(26, (26, 0.9, [0, 0, 20, 11])) == 1.0
    # the second detection of an object is wrong, but all objects have been found before it
    assert ap50(26, car, (26, 0.95, [0, 0, 20, 19])) == 1.0
    # inside a group, and on an object of fewer than 100 pixels, a detection does not count
    assert ap50(24, person, (24, 0.9, [42, 2, 15, 15]), (24, 0.85, [0, 40, 9, 9])) == 1.0
    # but elsewhere it does, and so it does on a group of another class
    assert ap50(24, person, (24, 0.9, [60, 20, 15, 15])) < 1.0
    assert ap50(26, car, (26, 0.95, [42, 2, 15, 15])) < 1.0
    # an empty mask is no detection
    assert ap50(26, car, (26, 0.95, [5, 5, 0, 0])) == 1.0
    assert ap50(26) == 0.0
    void = _encode(_bitmap(np.array([60, 20, 8, 15])))
    if iou_type == "segm":
        # 120 of 225 pixels are void: more than the threshold's half
        assert ap50(24, person, (24, 0.9, [60, 20, 15, 15]), void=void) == 1.0


def test_no_data_at_all() -> None:
    empty = {"images": [], "annotations": [], "categories": [{"id": 24, "name": "person"}]}
    for iou_type in ("bbox", "segm"):
        result = evaluate_cityscapes(empty, Detections.empty(with_masks=True), iou_type)
        assert result.metrics() == {"AP": -1.0, "AP50": -1.0, "AP75": -1.0}


def test_evaluator() -> None:
    dataset, detections = _data(0, True)
    evaluator = CityscapesEvaluator(dataset, [0, *LABELS], ("bbox", "segm"))
    report = evaluator.evaluate_detections(detections)
    assert set(report.metrics) == {f"{t}/{m}" for t in ("bbox", "segm") for m in ("AP", "AP50", "AP75")}
    assert report.tasks["segm"].area == "mask" and report.tasks["bbox"].area == "box"
    assert report.metrics["segm/AP"] == evaluate_cityscapes(dataset, detections, "segm").metrics()["AP"]
