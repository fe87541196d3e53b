"""Boxes, masks and keypoints in a window that may reach out of the image."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_benchmark.structures import BoxList, Keypoints, SegmentationMask
from maskrcnn_benchmark.structures.polygons import clip_polygon

WINDOW = st.tuples(st.integers(-20, 35), st.integers(-20, 35), st.integers(1, 40), st.integers(1, 40)).map(
    lambda w: (w[0], w[1], w[0] + w[2], w[1] + w[3])
)


def area(polygon: torch.Tensor) -> float:
    """Signed area of a flat polygon."""
    x, y = polygon.double().reshape(-1, 2).unbind(1)
    return float((x * y.roll(-1) - y * x.roll(-1)).sum() / 2)


def star(points: int, centre: float, radius: float) -> torch.Tensor:
    """A concave polygon."""
    turns = np.arange(2 * points) * math.pi / points
    reach = np.where(np.arange(2 * points) % 2, radius / 3, radius)
    corners = np.stack([centre + reach * np.cos(turns), centre + reach * np.sin(turns)], axis=1)
    return torch.tensor(corners.reshape(-1), dtype=torch.float32)


def test_corners_and_crossings() -> None:
    """A square that leaves at one corner, one around the image, one inside, one outside."""
    square = torch.tensor([-2.0, -3, 4, -3, 4, 5, -2, 5])
    assert sorted(clip_polygon(square, 10, 10).reshape(-1, 2).tolist()) == [[0, 0], [0, 5], [4, 0], [4, 5]]
    assert abs(area(clip_polygon(square * 100, 10, 7))) == 70
    inside = torch.tensor([0.0, 0, 4, 0, 4, 7])
    assert torch.equal(clip_polygon(inside, 10, 7), inside)
    assert len(clip_polygon(inside + 20, 10, 10)) == len(clip_polygon(torch.zeros(0), 10, 10)) == 0


@settings(max_examples=60, deadline=None)
@given(WINDOW, st.integers(3, 7), st.floats(3, 25))
def test_clipped_polygons_enclose_what_the_window_shows(
    window: tuple[int, int, int, int], points: int, radius: float
) -> None:
    """The four parts of a polygon in the quarters of a large window add up to it; none leaves its window."""
    whole = star(points, 15.3, radius)
    x, y = window[:2]
    shifted = whole.clone()
    shifted[0::2] -= x - 100
    shifted[1::2] -= y - 100
    parts = []
    for left in (0, 100):
        for top in (0, 100):
            moved = shifted.clone()
            moved[0::2] -= left
            moved[1::2] -= top
            part = clip_polygon(moved, 100, 100)
            assert ((part >= 0) & (part <= 100)).all()
            parts.append(area(part) if len(part) else 0.0)
    assert math.isclose(sum(parts), area(whole), rel_tol=1e-3, abs_tol=1e-2)


@settings(max_examples=60, deadline=None)
@given(WINDOW, st.integers(0, 2**31))
def test_bitmaps_and_run_lengths_are_cut_exactly(window: tuple[int, int, int, int], seed: int) -> None:
    """Against an image padded on all sides."""
    bits = torch.rand((2, 30, 24), generator=torch.Generator().manual_seed(seed)) > 0.5
    padded = torch.nn.functional.pad(bits, (60, 60, 60, 60))
    x0, y0, x1, y1 = window
    expected = padded[:, y0 + 60 : y1 + 60, x0 + 60 : x1 + 60]
    masks = SegmentationMask(bits, (24, 30), "mask")
    for form in (masks, SegmentationMask(masks.to_rles(), (24, 30), "rle")):
        cut = form.cut(window)
        assert cut.size == (x1 - x0, y1 - y0) and torch.equal(cut.to_bitmaps(), expected)


@settings(max_examples=60, deadline=None)
@given(WINDOW)
def test_polygons_are_cut_like_their_bitmaps(window: tuple[int, int, int, int]) -> None:
    """But for pixels of the outline; what was cut off does not come back at another size."""
    polygon = SegmentationMask([[star(5, 15.3, 14).tolist()], [[2, 2, 9, 2, 9, 12, 2, 12]]], (30, 30))
    cut = polygon.cut(window)
    expected = SegmentationMask(polygon.to_bitmaps(), (30, 30), "mask").cut(window).to_bitmaps()
    assert cut.mode == "poly" and cut.size == (window[2] - window[0], window[3] - window[1])
    assert (cut.to_bitmaps() ^ expected).sum() <= 12
    assert torch.equal(cut.to_bitmaps()[1], expected[1])
    for outline in (flat for polygons in cut.polygons() for flat in polygons):
        assert (
            outline.min() >= 0 and outline[0::2].max() <= cut.size[0] and outline[1::2].max() <= cut.size[1]
        )
    doubled = cut.resize((2 * int(cut.size[0]), 2 * int(cut.size[1]))).crop((0, 0, 500, 500)).to_bitmaps()
    assert doubled.sum() <= 4.6 * expected.sum() + 40


def test_box_lists_are_cut_with_all_fields() -> None:
    """Entries stay, boxes are clamped, masks cut, points outside vanish; other modes come back."""
    target = BoxList([[2, 3, 11, 12], [20, 20, 29, 29]], (30, 30))
    target.add_field("labels", torch.tensor([4, 5]))
    squares = [[[2, 3, 12, 3, 12, 13, 2, 13]], [[20, 20, 30, 20, 30, 30, 20, 30]]]
    target.add_field("masks", SegmentationMask(squares, (30, 30)))
    points = torch.tensor([[[5.0, 6, 2], [11, 11, 1]], [[25, 25, 2], [8, 8, 0]]])
    target.add_field("keypoints", Keypoints(points, (30, 30), (0, 1)))
    cut = target.cut((4, -5, 10, 10))
    assert cut.size == (6, 15) and cut.bbox[0].tolist() == [0, 8, 5, 14]
    assert cut.get_field("labels").tolist() == [4, 5]
    assert cut.get_field("masks").to_bitmaps().sum((1, 2)).tolist() == [6 * 7, 0]
    assert cut.get_field("keypoints").points.tolist() == [[[1, 11, 2], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]
    assert target.convert("xywh").cut((4, -5, 10, 10)).bbox[0].tolist() == [0, 8, 6, 7]
    assert len(target[[]].cut((0, 0, 1, 1))) == 0
    larger = target.cut((-3, -2, 50, 40))
    assert larger.bbox[1].tolist() == [23, 22, 32, 31] and larger.size == (53, 42)
