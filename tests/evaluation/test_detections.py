"""The container of detections: dtypes, JSON round trip, limit per image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.utils.errors import DataError


def _rows(count: int, masks: bool = True) -> list[dict[str, Any]]:
    grid = np.zeros((8, 10), np.uint8, order="F")
    grid[2:5, 3:9] = 1
    rle = mask_utils.encode(grid)
    rows = []
    for i in range(count):
        row: dict[str, Any] = {
            "image_id": i % 3,
            "category_id": 5,
            "score": i / 10,
            "bbox": [1.0, 2.0, 3.0, 4.5],
        }
        if masks:
            row["segmentation"] = {"size": [8, 10], "counts": rle["counts"].decode()}
        rows.append(row)
    return rows


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_json_round_trip(count: int, masks: bool) -> None:
    rows = _rows(count, masks)
    assert Detections.from_json(rows).to_json() == rows


def test_counts_as_bytes_become_text() -> None:
    rows = _rows(1)
    rows[0]["segmentation"]["counts"] = rows[0]["segmentation"]["counts"].encode()
    assert isinstance(Detections.from_json(rows).to_json()[0]["segmentation"]["counts"], str)


def test_box_of_a_result_without_box_is_the_masks() -> None:
    rows = _rows(1)
    del rows[0]["bbox"]
    assert Detections.from_json(rows).boxes.tolist() == [[3.0, 2.0, 6.0, 3.0]]


def test_errors_say_what_is_missing() -> None:
    rows = _rows(2)
    del rows[1]["score"]
    with pytest.raises(DataError, match="detection 1: missing score"):
        Detections.from_json(rows)
    rows = _rows(2)
    del rows[0]["bbox"], rows[0]["segmentation"]
    with pytest.raises(DataError, match="bbox, segmentation or keypoints"):
        Detections.from_json(rows)
    with pytest.raises(DataError, match="1 of 2 entries have a segmentation"):
        Detections.from_json(_rows(1) + _rows(1, masks=False))
    with pytest.raises(DataError, match="differ in length"):
        Detections(np.zeros(2), np.zeros(1), np.zeros(2), np.zeros((2, 4)))
    with pytest.raises(DataError, match="image 4 is NaN"):
        Detections(np.array([3, 4]), np.zeros(2), np.array([0.0, np.nan]), np.zeros((2, 4)))


def test_extend_and_concatenate() -> None:
    both = Detections.empty()
    both.extend(Detections.from_json(_rows(2)))
    both.extend(Detections.from_json(_rows(3)))
    assert both.to_json() == _rows(2) + _rows(3)
    assert Detections.concatenate([]).rles is None
    nothing = Detections.concatenate([Detections.empty(with_masks=True)]).rles
    assert nothing is not None and len(nothing) == 0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=40),
    st.integers(1, 6),
)
def test_top_per_image_keeps_the_best_and_the_earlier_of_equals(
    pairs: list[tuple[int, int]], limit: int
) -> None:
    rows = [
        {"image_id": image, "category_id": 1, "score": float(score), "bbox": [float(i), 0.0, 1.0, 1.0]}
        for i, (image, score) in enumerate(pairs)
    ]
    kept = Detections.from_json(rows).top_per_image(limit).boxes[:, 0].astype(int).tolist()
    expected = []
    for image in range(4):
        mine = [i for i, (where, _) in enumerate(pairs) if where == image]
        expected += sorted(mine, key=lambda i: -pairs[i][1])[:limit]
    assert kept == sorted(expected)
