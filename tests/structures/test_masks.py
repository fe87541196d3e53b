"""SegmentationMask: polygons, run lengths and bitmaps behave alike."""

from __future__ import annotations

import pytest
import torch
from pycocotools import mask as coco_mask

from maskrcnn_benchmark.structures import FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM, SegmentationMask

SIZE = (40, 30)
SQUARE = [[10, 5, 26, 5, 26, 21, 10, 21]]
TRIANGLE = [[2.5, 3.0, 30.0, 8.0, 12.0, 27.5]]


def bitmap_of(polygons: list[list[float]]) -> torch.Tensor:
    """(h,w) bool of pycocotools."""
    rle = coco_mask.merge(coco_mask.frPyObjects(polygons, SIZE[1], SIZE[0]))
    return torch.from_numpy(coco_mask.decode(rle)).bool()


def plain_rle(bitmap: torch.Tensor) -> dict:
    """Uncompressed column-major run lengths, starting with zeros."""
    counts, value, run = [], False, 0
    for pixel in bitmap.T.reshape(-1).tolist():
        if pixel != value:
            counts.append(run)
            value, run = pixel, 0
        run += 1
    return {"size": list(bitmap.shape), "counts": [*counts, run]}


def forms() -> dict[str, SegmentationMask]:
    """The same two objects in all forms, one mixed."""
    bitmaps = torch.stack([bitmap_of(SQUARE), bitmap_of(TRIANGLE)])
    packed = [coco_mask.encode(b.numpy().astype("uint8").copy(order="F")) for b in bitmaps]
    text = [{"size": p["size"], "counts": p["counts"].decode()} for p in packed]
    return {
        "poly": SegmentationMask([SQUARE, TRIANGLE], SIZE),
        "mask": SegmentationMask(bitmaps, SIZE, mode="mask"),
        "rle bytes": SegmentationMask(packed, SIZE, mode="rle"),
        "rle text": SegmentationMask(text, SIZE, mode="rle"),
        "rle plain": SegmentationMask([plain_rle(b) for b in bitmaps], SIZE, mode="rle"),
        "mixed": SegmentationMask([SQUARE, plain_rle(bitmaps[1])], SIZE),
    }


@pytest.mark.parametrize("form", list(forms()))
def test_forms_agree(form: str) -> None:
    """Bitmaps, run lengths, indexing and cropping to whole pixels agree with the polygons."""
    masks, reference = forms()[form], forms()["poly"]
    assert torch.equal(masks.to_bitmaps(), reference.to_bitmaps())
    assert [r["counts"] for r in masks.to_rles()] == [r["counts"] for r in reference.to_rles()]
    assert torch.equal(masks[[1]].to_bitmaps(), reference.to_bitmaps()[1:])
    assert torch.equal(masks[torch.tensor([False, True])].to_bitmaps(), reference.to_bitmaps()[1:])
    assert torch.equal(masks.crop((4, 3, 30, 28)).to_bitmaps(), reference.to_bitmaps()[:, 3:28, 4:30])
    assert masks.mode == ("poly" if form == "poly" else "mask")
    for method, axis in ((FLIP_LEFT_RIGHT, 2), (FLIP_TOP_BOTTOM, 1)):
        flipped = masks.transpose(method)
        assert torch.equal(flipped.transpose(method).to_bitmaps(), masks.to_bitmaps())
        # polygons are flipped about coordinate (side - 1) / 2: their bitmaps move by at most one pixel
        expected = reference.to_bitmaps().flip(axis)
        assert (flipped.to_bitmaps() ^ expected).float().mean() < 0.05


def test_resize_keeps_shape() -> None:
    """All forms agree with the directly rasterised larger polygon up to the outline."""
    for masks in forms().values():
        bigger = masks.resize((80, 60))
        expected = forms()["poly"].resize((80, 60)).to_bitmaps()
        both, either = (
            (bigger.to_bitmaps() & expected).sum((1, 2)),
            (bigger.to_bitmaps() | expected).sum((1, 2)),
        )
        assert bigger.to_bitmaps().shape == (2, 60, 80) and (both / either > 0.9).all()


def test_full_cover_only_keeps_full_pixels() -> None:
    """The compatibility switch keeps a subset."""
    masks = forms()["mask"]
    half, full = masks.resize((25, 20)).to_bitmaps(), masks.resize((25, 20), full_cover=True).to_bitmaps()
    assert not (full & ~half).any() and full.sum() < half.sum()


def test_invalid_polygons_keep_alignment() -> None:
    """An object with only invalid polygons stays as an empty mask at its index."""
    masks = SegmentationMask([[[3, 2, 39, 4]], SQUARE, [], [[1, 1], SQUARE[0]]], SIZE)
    assert [len(p) for p in masks.polygons()] == [0, 1, 0, 1]
    assert masks.to_bitmaps().flatten(1).any(1).tolist() == [False, True, False, True]
    assert masks.resize((10, 10)).transpose(0).to_bitmaps().shape == (4, 10, 10)


def test_box_targets_of_a_box_inside_and_outside() -> None:
    """A box equal to the square is full; one beyond the image keeps the scale of its sides (as published)."""
    masks = forms()["poly"]
    targets = masks.box_targets([0, 0], torch.tensor([[10.0, 5, 26, 21], [-6, -11, 26, 21]]), 8)
    assert targets[0].all()
    # origin clamped to 0, sides 32: the square covers x 10..26, y 5..21 of 32
    assert targets[1].any(0).nonzero().flatten().tolist() == [3, 4, 5, 6]
    assert targets[1].any(1).nonzero().flatten().tolist() == [1, 2, 3, 4]
    assert masks.box_targets([], torch.zeros((0, 4)), 8).shape == (0, 8, 8)


def test_errors() -> None:
    """Sizes that differ, unknown modes and polygons of bitmaps."""
    with pytest.raises(ValueError, match="image of size"):
        SegmentationMask(torch.zeros((1, 5, 5)), SIZE, mode="mask")
    with pytest.raises(ValueError, match="run lengths of 7 pixels"):
        SegmentationMask([{"size": [30, 40], "counts": [3, 4]}], SIZE)
    with pytest.raises(ValueError, match="mask mode"):
        SegmentationMask([], SIZE, mode="bits")
    with pytest.raises(ValueError, match="all polygons"):
        forms()["mask"].polygons()
    with pytest.raises(IndexError):
        forms()["poly"][torch.tensor([True])]
    with pytest.raises(ValueError, match="flip method"):
        forms()["poly"].transpose(2)


def test_no_objects() -> None:
    """(0,h,w) bitmaps, no run lengths."""
    masks = SegmentationMask([], SIZE)
    assert masks.to_bitmaps().shape == (0, 30, 40) and masks.to_rles() == [] and masks.mode == "poly"
