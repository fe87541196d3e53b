"""What must hold for the masks of any objects: forms agree, geometry keeps counts, round trips."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_benchmark.structures import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM, SegmentationMask

SIDE = st.integers(1, 40)


@st.composite
def masks(draw: st.DrawFn) -> SegmentationMask:
    """Up to four objects: polygons of up to nine points anywhere about the image, or random bitmaps."""
    width, height = draw(SIDE), draw(SIDE)
    entries: list[object] = []
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            points = draw(st.lists(st.integers(-20, 120), min_size=6, max_size=18))
            entries.append([[value / 2 for value in points[: len(points) // 2 * 2]]])
        else:
            seed = draw(st.integers(0, 2**31))
            bits = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) > 0.5
            entries.append(SegmentationMask(bits[None], (width, height), "mask").to_rles()[0])
    return SegmentationMask(entries, (width, height))


@settings(max_examples=60, deadline=None)
@given(masks())
def test_run_lengths_and_bitmaps_agree(masks: SegmentationMask) -> None:
    bitmaps = masks.to_bitmaps()
    again = SegmentationMask(masks.to_rles(), masks.size, "rle")
    assert torch.equal(again.to_bitmaps(), bitmaps) and len(again) == len(masks)
    assert torch.equal(SegmentationMask(bitmaps, masks.size, "mask").to_bitmaps(), bitmaps)


@settings(max_examples=60, deadline=None)
@given(masks(), st.sampled_from([FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM]))
def test_flipping_twice_changes_nothing(masks: SegmentationMask, method: int) -> None:
    twice = masks.transpose(method).transpose(method)
    assert torch.equal(twice.to_bitmaps(), masks.to_bitmaps()) and twice.mode == masks.mode


@settings(max_examples=60, deadline=None)
@given(masks(), SIDE, SIDE)
def test_resize_and_crop_give_the_size_asked_for(masks: SegmentationMask, width: int, height: int) -> None:
    resized = masks.resize((width, height))
    assert resized.to_bitmaps().shape == (len(masks), height, width)
    same = masks.resize((int(masks.size[0]), int(masks.size[1])))
    assert torch.equal(same.to_bitmaps(), masks.to_bitmaps())
    cropped = masks.crop((0, 0, float(width), float(height)))
    assert len(cropped) == len(masks) and min(cropped.size) >= 1


@settings(max_examples=60, deadline=None)
@given(masks(), st.data())
def test_picking_keeps_objects_whole(masks: SegmentationMask, data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(0, max(0, len(masks) - 1)), max_size=6 if len(masks) else 0))
    assert torch.equal(masks[torch.tensor(index, dtype=torch.int64)].to_bitmaps(), masks.to_bitmaps()[index])
    halves = [masks[:1], masks[1:]]
    assert torch.equal(SegmentationMask.cat(halves).to_bitmaps(), masks.to_bitmaps())
