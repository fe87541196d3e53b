"""Run-length encoded masks: pixels of pycocotools, one verdict for all forms, bounded memory."""

from __future__ import annotations

import math
import resource
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from maskrcnn_benchmark.structures import SegmentationMask
from maskrcnn_benchmark.structures.polygons import MAX_COORDINATE
from maskrcnn_benchmark.structures.rle import decode_rle, read_rle, rle_from_polygons

HEIGHT, WIDTH = 37, 52
MEGABYTE = 2**20
FAR = MAX_COORDINATE - 1.0
coordinate = st.one_of(st.floats(-30, 90, width=32), st.integers(-5, 60).map(float), st.floats(-1e4, 1e4))
polygon = st.lists(coordinate, min_size=6, max_size=40).map(lambda v: v[: len(v) // 2 * 2])


def ours(polygons: list[list[float]], height: int = HEIGHT, width: int = WIDTH) -> dict[str, Any]:
    return rle_from_polygons([torch.tensor(p, dtype=torch.float64) for p in polygons], height, width)


def theirs(polygons: list[list[float]], height: int = HEIGHT, width: int = WIDTH) -> dict[str, Any]:
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))


def pixels(rle: dict[str, Any]) -> int:
    return int(decode_rle(rle).sum())


@settings(max_examples=200)
@given(st.lists(polygon, min_size=1, max_size=4), st.integers(1, 60), st.integers(1, 60))
def test_outside_crossing_and_tiny_polygons_equal_pycocotools(
    polygons: list[list[float]], height: int, width: int
) -> None:
    assert ours(polygons, height, width) == theirs(polygons, height, width)


@pytest.mark.parametrize("scale", [3.0, 40.0, 400.0])
def test_long_outlines_and_many_parts_equal_pycocotools(scale: float) -> None:
    """More crossings and pieces than a list holds at a time."""
    rng = np.random.default_rng(0)
    tangle = (rng.normal(size=4000) * scale + 20).tolist()
    corners = rng.uniform(0, 50, (3000, 1, 2)) + rng.uniform(-2, 2, (3000, 4, 2))
    parts = corners.reshape(3000, 8).tolist()
    for polygons in ([tangle], parts, [tangle, *parts[:9], tangle]):
        assert ours(polygons) == theirs(polygons)


def test_parts_of_two_points_enclose_nothing() -> None:
    square = [2.0, 2, 9, 2, 9, 9, 2, 9]
    assert ours([[1, 2], square, [0, 0, 30, 20]]) == theirs([square])
    assert ours([]) == ours([[1, 2]]) == coco_mask.encode(np.zeros((HEIGHT, WIDTH), np.uint8, order="F"))


def test_masks_of_far_outlines_are_clipped_to_the_image() -> None:
    square = [-FAR, -FAR, FAR, -FAR, FAR, FAR, -FAR, FAR]
    assert pixels(ours([square])) == HEIGHT * WIDTH
    half = [10.0, -FAR, FAR, -FAR, FAR, FAR, 10.0, FAR]
    assert ours([half]) == theirs([[10, -5, 60, -5, 60, 50, 10, 50]])
    assert pixels(ours([[v + 2 * FAR for v in half]])) == 0
    there_and_back = [value for x in (-FAR, FAR) * 5000 for value in (x, x)]
    assert pixels(ours([there_and_back])) == 0


def test_memory_is_bounded_by_the_image() -> None:
    """A zigzag of 10^7 crossings of columns: 80 MB as a list of them, 100 MB as a walk along its edges."""
    zigzag = np.zeros((20_000, 2))
    zigzag[1::2, 0] = 500
    zigzag[:, 1] = np.linspace(-3, 40, len(zigzag))
    ours([zigzag[:9].ravel().tolist()], 30, 500)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rle = rle_from_polygons([torch.from_numpy(zigzag.ravel())], 30, 500)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * MEGABYTE / 1024
    assert 0 < pixels(rle) < 30 * 500


def test_an_outline_that_no_drawing_has_is_refused() -> None:
    lines = torch.tensor([0.0, 0, 2**20, 1] * 200, dtype=torch.float64)
    with pytest.raises(ValueError, match="mask 0 cross the columns of its image more than"):
        rle_from_polygons([lines], 1, 2**20)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5), (2**20 + 1, 1), (2**20, 2**20), (2**62, 1)])
def test_impossible_images_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be from 1 to"):
        rle_from_polygons([torch.zeros(6)], *size)


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 20))
def test_lists_and_text_become_the_same_mask(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    bitmap = np.asfortranarray(rng.random((height, width)) < rng.choice([0.0, 0.1, 0.5, 1.0]), np.uint8)
    packed = coco_mask.encode(bitmap)
    flat = bitmap.ravel(order="F")
    bounds = np.flatnonzero(np.diff(flat, prepend=0))
    counts = np.diff(bounds, prepend=0, append=flat.size).tolist()
    for form in (counts, packed["counts"], packed["counts"].decode()):
        rle = read_rle({"size": [height, width], "counts": form}, (width, height))
        assert rle == packed
        np.testing.assert_array_equal(decode_rle(rle).numpy(), bitmap)


def text_of(runs: list[int]) -> str:
    """Compressed text of runs that need not make a mask."""
    lengths = torch.tensor(runs, dtype=torch.int64)
    offsets, size = torch.tensor([0, len(runs)]), torch.tensor([[0, 0]])
    text, _ = torch.ops.maskrcnn_benchmark.rle_from_runs(lengths, offsets, size)
    return text.numpy().tobytes().decode()


@pytest.mark.parametrize("runs", [[], [0], [0, 4], [4095], [4097], [0, 0, 0, 5], [3, 4000, 3], [2**40, 5, 9]])
def test_wrong_sums_are_named_alike_in_both_forms(runs: list[int]) -> None:
    rle_from_polygons([], 1, 1)  # loads the library
    for counts in (runs, text_of(runs)):
        with pytest.raises(ValueError, match=rf"^run lengths of {sum(runs)} pixels in a mask of \(h,w\)="):
            SegmentationMask([{"size": [64, 64], "counts": counts}], (64, 64))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("", "run lengths of 0 pixels"),
        ("04", "run lengths of 4 pixels"),
        ("o" * 5, "middle of a number"),
        ("N", "negative"),
        ("\x00", "character"),
        ("\u1234\ud800", "character"),
        (b"\xff\xfe", "character"),
        ("oooooooooooooooo0", "character"),
        ([-5, 4101], "whole numbers"),
        ([4096.0], "whole numbers"),
        (["4096"], "whole numbers"),
        ([10**400], "run lengths of 4611686018427387904 or more pixels"),
        ([4096, -(10**30)], "whole numbers"),
        (7, "expected text or a list"),
        (None, "expected text or a list"),
    ],
)
def test_counts_that_are_no_mask(counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        SegmentationMask([{"size": [64, 64], "counts": counts}], (64, 64))
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize(
    "size",
    [[64], [64, 64, 1], [64.0, 64], ["64", 64], None, 64, [-64, -64], [2**62, 2**62], [10**300, 1], [64, 63]],
)
def test_sizes_that_are_none(size: Any) -> None:
    for counts in ([4096], "PP4"):
        with pytest.raises(ValueError, match=r"with the size|in an image of size|in a mask of"):
            SegmentationMask([{"size": size, "counts": counts}], (64, 64))


@settings(max_examples=300)
@given(st.binary(max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_any_text_is_a_mask_or_refused(counts: bytes, height: int, width: int) -> None:
    try:
        rle = read_rle({"size": [height, width], "counts": counts})
    except ValueError:
        with pytest.raises(ValueError):
            decode_rle({"size": [height, width], "counts": counts})
    else:
        bitmap = decode_rle(rle)
        assert bitmap.shape == (height, width)
        assert bool((decode_rle(rle) == bitmap).all()), "every pixel is written"


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ([[0, 0, math.nan, 0, 5, 5]], "not finite"),
        ([[0, 0, 2.0 * MAX_COORDINATE, 0, 5, 5]], "beyond 1048576 pixels"),
        ([[0, 0, 10**400, 0, 5, 5]], "a polygon is a list of numbers"),
        ([[0, 0], [5, 0], [5, 5], [0, 5]], r"written as 4 points \[x, y\]"),
        ([[10, 10, 20, 20]], "a box in the place of a polygon"),
        ([0, 0, 5, 0, 5, 5], "pairs x, y"),
        ([[0, 0, 5, 0, 5]], "pairs x, y"),
    ],
)
def test_polygons_that_are_none(polygons: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationMask([polygons], (64, 64))


def test_far_polygons_in_every_form_of_target() -> None:
    """Bitmaps, targets among other forms and after geometry never leave the native rasteriser."""
    there_and_back = [value for x in (-FAR, FAR) * 5000 for value in (x, x)]
    square = [-FAR, -FAR, FAR, -FAR, FAR, FAR, -FAR, FAR]
    masks = SegmentationMask([[there_and_back], [square], {"size": [40, 50], "counts": [2000]}], (50, 40))
    assert masks.to_bitmaps().flatten(1).sum(1).tolist() == [0, 2000, 0]
    assert masks.resize((20, 10)).to_bitmaps().flatten(1).sum(1).tolist() == [0, 200, 0]
    boxes = torch.tensor([[0.0, 0, 9, 9]] * 3)
    assert masks.box_targets([0, 1, 2], boxes, 28).flatten(1).all(1).tolist() == [False, True, False]
