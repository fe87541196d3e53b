"""Masks in one buffer: equal to pycocotools to the byte, and what malformed ones say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from maskrcnn_benchmark.evaluation.record_masks import RecordMasks, annotation_masks
from maskrcnn_benchmark.evaluation.rle import RleMasks
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.native import load_ops

coordinate = st.one_of(st.floats(-20, 80, width=32), st.integers(-5, 60).map(float), st.floats(-1e5, 1e5))
polygon = st.lists(coordinate, min_size=6, max_size=24).map(lambda v: v[: len(v) // 2 * 2])


def encoded(bitmaps: np.ndarray) -> list[dict[str, Any]]:
    """RLEs of bool (N, h, w) by pycocotools."""
    return [mask_utils.encode(np.asfortranarray(bitmap.astype(np.uint8))) for bitmap in bitmaps]


@settings(max_examples=300, deadline=None)
@given(st.lists(polygon, min_size=1, max_size=3), st.integers(1, 60), st.integers(1, 60))
def test_polygons_equal_pycocotools(shape: list[list[float]], height: int, width: int) -> None:
    expected = mask_utils.merge(mask_utils.frPyObjects(shape, height, width))
    (result,) = annotation_masks([{"segmentation": shape}], np.array([[height, width]]))
    assert result == expected


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(0, 12))
def test_areas_and_boxes_equal_pycocotools(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    bitmaps = rng.random((6, height, width)) < rng.choice([0.0, 0.1, 0.5, 1.0], (6, 1, 1))
    # pycocotools cannot encode images without pixels
    rles = encoded(bitmaps) if height and width else [{"size": [height, width], "counts": b"0"}] * 6
    areas, boxes, problems = RleMasks.from_dicts(rles).measure()
    assert areas.tolist() == bitmaps.sum((1, 2)).tolist()
    assert not problems.any()
    if height and width:
        assert boxes.tolist() == [mask_utils.toBbox(rle).tolist() for rle in rles]


@pytest.mark.parametrize("threads", [1, 3])
def test_ious_equal_pycocotools(threads: int) -> None:
    load_ops()
    rng = np.random.default_rng(0)
    shape = (300, 20, 30)
    rows = encoded(rng.random(shape) < rng.choice([0.0, 0.05, 0.5, 0.95], (300, 1, 1)))
    columns = encoded(rng.random(shape) < rng.choice([0.0, 0.05, 0.5, 0.95], (300, 1, 1)))
    crowd = rng.random(300) < 0.3
    # 100 cells of 3 x 3, and one with nothing on the left
    starts = torch.from_numpy(np.append(np.arange(0, 301, 3), 300))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        result, bad_row, bad_column = torch.ops.maskrcnn_benchmark.mask_iou(
            *RleMasks.from_dicts(rows).tensors(),
            *RecordMasks.of([{"segmentation": c} for c in columns], np.array([shape[1:]] * 300)).tensors(),
            torch.from_numpy(crowd),
            starts,
            starts,
        )
    finally:
        torch.set_num_threads(before)
    assert (bad_row, bad_column) == (-1, -1)
    cells = result.numpy().reshape(100, 3, 3)
    for c in range(100):
        part = slice(3 * c, 3 * c + 3)
        expected = mask_utils.iou(rows[part], columns[part], crowd[part].astype(int).tolist())
        np.testing.assert_array_equal(cells[c], expected)


def test_mixed_annotations_keep_their_order() -> None:
    square = [[2.0, 2.0, 9.0, 2.0, 9.0, 9.0, 2.0, 9.0]]
    rle = mask_utils.merge(mask_utils.frPyObjects(square, 20, 10))
    counts = {"size": [20, 10], "counts": [50, 30, 120]}
    shapes = [counts, square, rle, counts, square]
    result = annotation_masks([{"segmentation": shape} for shape in shapes], np.array([[20, 10]] * 5))
    assert result.measure()[0].tolist() == [30, *[mask_utils.area(rle)] * 2, 30, mask_utils.area(rle)]


def test_select_and_concatenate_share_nothing_wrong() -> None:
    masks = RleMasks.from_dicts(encoded(np.eye(12, dtype=bool).reshape(3, 4, 12)))
    part = masks.select(np.array([2, 0]))
    both = RleMasks.concatenate([part, masks])
    assert list(both) == [masks[2], masks[0], *masks]
    assert len(RleMasks.concatenate([])) == 0


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (b"", "do not add up"),
        (b"5", "do not add up"),
        (b"\x8f", "character"),
        (b"0 1", "character"),
        (b"o", "middle of a number"),
        (b"oooooooooooooooooo0", "character"),
        (b"N", "negative"),
        (b"ooo9", "do not add up"),
    ],
)
def test_malformed_masks_say_why(counts: bytes, reason: str) -> None:
    masks = RleMasks.from_dicts([{"size": [3, 4], "counts": counts}, {"size": [3, 4], "counts": b"<"}])
    areas, boxes, problems = masks.measure()
    assert reason in masks.problem(0)
    assert masks.problem(1) == ""
    assert problems.tolist() == [problems[0], 0] and problems[0] > 0
    assert areas.tolist() == [0, 0] and not boxes.any()


@pytest.mark.parametrize("size", [[-1, 4], [2**40, 2**40], [2**33, 1]])
def test_impossible_sizes_say_so(size: list[int]) -> None:
    assert "size" in RleMasks.from_dicts([{"size": size, "counts": b"<"}]).problem(0)


@pytest.mark.parametrize(
    "bad",
    [{}, {"size": [3, 4]}, {"size": [3], "counts": "0"}, {"size": [3, 4], "counts": [12]}, [], None, "x"],
)
def test_dicts_of_another_kind_name_the_place(bad: Any) -> None:
    with pytest.raises(DataError, match="mask 1: expected a compressed RLE"):
        RleMasks.from_dicts([{"size": [3, 4], "counts": "<"}, bad])


def test_text_in_a_polygon_names_the_annotation() -> None:
    shapes = [[[0, 0, 4, 0, 4, 4]], [[0, 0, 4, "x", 4, 4]]]
    with pytest.raises(DataError, match="annotation 8: unreadable segmentation"):
        annotation_masks(
            [{"id": 7 + i, "segmentation": s} for i, s in enumerate(shapes)], np.array([[9, 9]] * 2)
        )


def test_impossible_image_sizes_are_an_error() -> None:
    shapes = [
        {"id": 4, "segmentation": [[0, 0, 2, 0, 2, 1]]},
        {"id": 5, "segmentation": [[0, 0, 9, 0, 9, 1]]},
    ]
    with pytest.raises(DataError, match="annotation 5: unreadable .*got 1 x 2000000000"):
        annotation_masks(shapes, np.array([[3, 3], [1, 2_000_000_000]]))


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1e9, 0, -1e9, 5, 3, 1e9], [1, 2]], "beyond 1048576 pixels"),
        ([[0, 0, np.nan, 5, 3, 9]], "not finite"),
        ([[0, 0, 10**400, 5, 3, 9]], "a list of numbers"),
        ([[0, 0], [4, 0], [4, 4]], r"written as 3 points \[x, y\]"),
        ([[0, 0, 4, 0, 4, 4, 1]], "must be pairs"),
        ([[2, 2, 4, 3]], "a box in the place of a polygon"),
        ({"size": [9, 9], "counts": [80]}, "run lengths of 80 pixels"),
        ({"size": [9, 9], "counts": [-1, 82]}, "whole numbers"),
        ("text", "is str"),
        (None, "is NoneType"),
    ],
)
def test_unreadable_segmentations_name_the_annotation(segmentation: Any, message: str) -> None:
    records = [{"id": 3, "segmentation": [[0, 0, 4, 0, 4, 4]]}, {"id": 8, "segmentation": segmentation}]
    with pytest.raises(DataError, match=f"annotation 8: .*{message}"):
        annotation_masks(records, np.array([[9, 9]] * 2))


def test_far_outlines_and_short_parts() -> None:
    """A part of two points sends no outline to another rasteriser; what is far costs nothing."""
    there_and_back = [value for x in (-1e6, 1e6) * 5000 for value in (x, x)]
    square = [-1e6, -1e6, 1e6, -1e6, 1e6, 1e6, -1e6, 1e6]
    shapes = [[there_and_back, [1, 2]], [[1, 2], square], [square], [], [[3, 2, 49, 4]]]
    masks = annotation_masks([{"segmentation": shape} for shape in shapes], np.array([[40, 50]] * 5))
    assert masks.measure()[0].tolist() == [0, 2000, 2000, 0, 0]
    assert not masks.measure()[2].any()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=30), st.integers(0, 50), st.integers(0, 50))
def test_any_text_is_decoded_or_refused(counts: bytes, height: int, width: int) -> None:
    masks = RleMasks.from_dicts([{"size": [height, width], "counts": counts}])
    areas, _, problems = masks.measure()
    assert 0 <= areas[0] <= height * width
    assert areas[0] == 0 or problems[0] == 0
