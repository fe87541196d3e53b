"""Boxes that look wrong are told, with examples, when a file is opened; good files say nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile


def _file(boxes: list, name: str = "ann.json", **more: Any) -> AnnotationFile:
    """A file of one image of 100 x 80 with these boxes."""
    annotations = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": list(box), "area": 1.0} | more
        for number, box in enumerate(boxes, start=1)
    ]
    images = [{"id": 1, "width": 100, "height": 80, "file_name": "1.png"}]
    content = {"images": images, "categories": [{"id": 1, "name": "a"}], "annotations": annotations}
    return AnnotationFile(content, name)


def _random(count: int) -> np.ndarray:
    """x1, y1, x2, y2 inside the image, float64 (count, 4)."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, (60, 50), (count, 2))
    return np.concatenate([low, low + rng.uniform(5, 28, (count, 2))], axis=1).round(1)


def test_good_boxes_are_not_suspicious(caplog: pytest.LogCaptureFixture) -> None:
    corners = _random(50)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    assert _file(boxes.tolist()).suspicions == [] and not caplog.text
    masks = [[x, y, x + w, y, x + w, y + h] for x, y, w, h in boxes.tolist()]
    assert _file([boxes[0].tolist()], segmentation=[masks[0]]).suspicions == []
    assert _file([]).suspicions == []


def test_corners_in_the_place_of_sizes(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = _file(_random(50).tolist(), "corners.json").suspicions
    assert "all fit as x1, y1, x2, y2 (annotations" in line and "must be x, y, width, height" in line
    assert f"annotation file corners.json: {line}" in caplog.text
    caplog.clear()
    _file(_random(50).tolist(), "corners.json")
    assert not caplog.text


def test_a_box_that_leaves_its_image() -> None:
    (line,) = _file([(5, 5, 20, 20), (60, 20, 60, 5), (20, 5, 5, 5), (0, 0, 100.5, 80)]).suspicions
    assert "1 boxes reach more than a pixel out of their images (annotations 2) and are cut" in line


def test_fractions_of_the_image() -> None:
    (line,) = _file([(0.1, 0.2, 0.5, 0.4), (0, 0, 1, 1)]).suspicions
    assert "all boxes lie within 0 and 1" in line and "multiply them by width and height" in line


def test_only_crowds() -> None:
    (line,) = _file([(5, 5, 20, 20)], iscrowd=1).suspicions
    assert "all 1 annotations are crowds" in line


@pytest.mark.parametrize("form", ["polygon", "runs"])
def test_boxes_that_are_not_around_their_masks(form: str) -> None:
    polygon: Any = [[40, 40, 60, 40, 60, 60, 40, 60]]
    runs = {"size": [80, 100], "counts": [40 * 80 + 40, 20] + [60, 20] * 19 + [40 * 80 - 60]}
    runs["counts"][-1] = 8000 - sum(runs["counts"][:-1])
    masks = polygon if form == "polygon" else runs
    assert _file([(40, 40, 20, 20)], segmentation=masks).suspicions == []
    (line,) = _file([(5, 5, 20, 20), (40, 40, 20, 20)], segmentation=masks).suspicions
    assert "1 boxes are not around their masks (annotations 1)" in line
