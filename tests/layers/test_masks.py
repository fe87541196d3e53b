"""paste_masks and polygon_mask_targets against torch's interpolation and pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.layers import paste_masks, polygon_mask_targets


def paste_reference(
    masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float, padding: int
) -> Tensor:
    """One instance at a time: pad, grow the box, interpolate, compare, copy the part inside."""
    out = torch.zeros(len(masks), height, width, dtype=torch.bool)
    side = masks.shape[1]
    grow = (side + 2 * padding) / side
    for n, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
        half, centre = (box[2:] - box[:2]) * 0.5 * grow, (box[2:] + box[:2]) * 0.5
        (x1, y1), (x2, y2) = (centre - half).int().tolist(), (centre + half).int().tolist()
        padded = F.pad(mask, (padding,) * 4)[None, None]
        size = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
        resized = F.interpolate(padded, size=size, mode="bilinear", align_corners=False)[0, 0] > threshold
        top, bottom, left, right = max(y1, 0), min(y2 + 1, height), max(x1, 0), min(x2 + 1, width)
        if bottom > top and right > left:
            out[n, top:bottom, left:right] = resized[top - y1 : bottom - y1, left - x1 : right - x1]
    return out


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2), st.integers(0, 1000), st.sampled_from([0.3, 0.5]))
def test_paste_equals_reference(side: int, padding: int, seed: int, threshold: float) -> None:
    g = torch.Generator().manual_seed(seed)
    masks = torch.rand(6, side, side, generator=g)
    corner = torch.rand(6, 2, generator=g) * 140 - 40
    boxes = torch.cat([corner, corner + torch.rand(6, 2, generator=g) * 90 - 5], dim=1)
    ours = paste_masks(masks, boxes, 60, 80, threshold, padding)
    # A value may round to the other side of the threshold.
    assert (ours != paste_reference(masks, boxes, 60, 80, threshold, padding)).sum() <= 2


def test_paste_strange_boxes() -> None:
    nan, inf = float("nan"), float("inf")
    strange = [[nan, 0, 9, 9], [0, 0, 9, nan], [500, 0, 600, 9], [-90, -90, -50, -50], [30, 30, 5, 5]]
    huge = [[-inf, 0, inf, 9], [-1e30, -1e30, 1e30, 1e30], [0, 0, 3e9, 3e9], [2.0**31] * 4]
    boxes = torch.tensor(strange + huge)
    out = paste_masks(torch.ones(9, 5, 5), boxes, 20, 30)
    assert not out[:5].any()
    assert out[6].all()
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), 20, 30).shape == (0, 20, 30)
    assert paste_masks(torch.ones(1, 5, 5), torch.zeros(1, 4), 0, 30).shape == (1, 0, 30)


def test_paste_half_precision_and_threads() -> None:
    masks, boxes = torch.rand(9, 28, 28), torch.tensor([[3.0, 4, 60, 50]]).repeat(9, 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    one = paste_masks(masks, boxes, 64, 64)
    torch.set_num_threads(3)
    assert torch.equal(one, paste_masks(masks, boxes, 64, 64))
    torch.set_num_threads(threads)
    half = masks.bfloat16()
    assert torch.equal(paste_masks(half, boxes, 64, 64), paste_masks(half.float(), boxes, 64, 64))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(2, 5, 6), torch.zeros(2, 4), 9, 9), ValueError, r"masks must have shape \(N, M, M\)"),
        ((torch.zeros(2, 1, 5, 5), torch.zeros(2, 4), 9, 9), ValueError, r"got \(2, 1, 5, 5\)"),
        (
            (torch.zeros(2, 5, 5), torch.zeros(3, 4), 9, 9),
            ValueError,
            r"boxes must have shape .* got \(3, 4\)",
        ),
        (
            (torch.zeros(2, 5, 5).byte(), torch.zeros(2, 4), 9, 9),
            TypeError,
            "masks must be float32.* got Byte",
        ),
        ((torch.zeros(2, 5, 5), torch.zeros(2, 4), -1, 9), ValueError, "height must be from 0 to .* got -1"),
        ((torch.zeros(2, 5, 5), torch.zeros(2, 4), 9, 9, -1.0), ValueError, "threshold must be from 0 to 1"),
        ((torch.zeros(2, 5, 5), torch.zeros(2, 4), 9, 9, 0.5, -1), ValueError, "padding must be from 0"),
    ],
)
def test_paste_bad_arguments(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        paste_masks(*arguments)


def target_reference(polygons: list[Tensor], box: list[float], size: int, image: tuple[int, int]) -> Tensor:
    """Shift and scale in float32, then pycocotools."""
    rles = []
    for polygon in polygons:
        moved = polygon.float().clone()
        for axis in (0, 1):
            origin = min(max(box[axis], 0.0), image[axis] - 1.0)
            side = max(box[axis + 2] - box[axis], 1.0)
            moved[axis::2] = (moved[axis::2] - origin) * (size / side)
        rles += coco_mask.frPyObjects([moved.double().numpy()], size, size)
    if not rles:
        return torch.zeros(size, size, dtype=torch.bool)
    return torch.from_numpy(np.ascontiguousarray(coco_mask.decode(coco_mask.merge(rles)))).bool()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 7, 14, 28, 33]), st.booleans())
def test_targets_equal_the_coco_library(seed: int, size: int, whole_pixels: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    polygons = []
    for count in torch.randint(0, 4, (3,), generator=g).tolist():
        points = torch.randint(3, 12, (count,), generator=g).tolist()
        polygons.append([torch.rand(2 * p, generator=g) * 120 - 10 for p in points])
    if whole_pixels:
        polygons = [[p.round() for p in instance] for instance in polygons]
    corner = torch.rand(8, 2, generator=g) * 100 - 10
    boxes = torch.cat([corner, corner + torch.rand(8, 2, generator=g) * 60], dim=1)
    owners = torch.randint(0, 3, (8,), generator=g)
    ours = polygon_mask_targets(polygons, owners, boxes, size, (100, 90))
    for target, owner, box in zip(ours, owners.tolist(), boxes.tolist(), strict=True):
        assert torch.equal(target, target_reference(polygons[owner], box, size, (100, 90)))


def test_targets_of_strange_input() -> None:
    nan = float("nan")
    square = torch.tensor([0.0, 0, 10, 0, 10, 10, 0, 10])
    polygons = [[square], [], [square[:4]], [torch.full((8,), nan)], [square * 1e30], [torch.zeros(0)]]
    boxes = torch.tensor([[0.0, 0, 9, 9]]).repeat(6, 1)
    out = polygon_mask_targets(polygons, torch.arange(6), boxes, 14)
    assert out[0].all()
    assert not out[[1, 2, 3, 5]].any()
    bad = torch.tensor([[nan, 0, 9, 9], [5, 5, 1, 1], [-1e30, 0, 1e30, 9], [3e9, 3e9, 4e9, 4e9]])
    assert polygon_mask_targets([[square]], torch.zeros(4).long(), bad, 14, (20, 20)).shape == (4, 14, 14)
    assert polygon_mask_targets([], torch.zeros(0).long(), torch.zeros(0, 4), 14).shape == (0, 14, 14)
    # Vertices far away cost no time.
    far = torch.tensor([-1e9, -1e9, 1e9, -1e9, 1e9, 1e9, -1e9, 1e9])
    assert polygon_mask_targets([[far]], torch.zeros(1).long(), boxes[:1], 28).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({0: torch.zeros(4, 3)}, ValueError, r"coords must have shape \(P, 2\), got \(4, 3\)"),
        (
            {1: torch.tensor([0, 3])},
            ValueError,
            r"polygon_offsets must end with the number of points \(4\), got 3",
        ),
        ({1: torch.tensor([0, 9, 4])}, ValueError, "polygon_offsets must not decrease, got 9 then 4 at 2"),
        ({1: torch.tensor([1, 4])}, ValueError, "polygon_offsets must begin with 0, got 1"),
        ({1: torch.tensor([0.0, 4.0])}, TypeError, "polygon_offsets must be Long, got Float"),
        ({1: torch.zeros(0).long()}, ValueError, "must hold at least one 0"),
        (
            {2: torch.tensor([0, 2])},
            ValueError,
            r"instance_offsets must end with the number of polygons \(1\)",
        ),
        ({3: torch.tensor([1])}, ValueError, r"instance_of_box\[0\] must be from 0 to 0, got 1"),
        ({3: torch.tensor([0, 0])}, ValueError, "instance_of_box must have shape"),
        ({4: torch.zeros(1, 5)}, ValueError, r"boxes must have shape \(R, 4\)"),
        ({5: 0}, ValueError, "image_w must be from 1"),
        ({7: 100_000}, ValueError, "size must be from 1 to 4096, got 100000"),
    ],
)
def test_rasterize_bad_arguments(change: dict, error: type[Exception], message: str) -> None:
    polygon_mask_targets([], torch.zeros(0).long(), torch.zeros(0, 4), 14)  # loads the library
    offsets = torch.tensor([0, 1])
    arguments = [
        torch.zeros(4, 2).double(),
        torch.tensor([0, 4]),
        offsets,
        torch.tensor([0]),
        torch.zeros(1, 4),
    ]
    arguments += [10, 10, 14]
    for position, value in change.items():
        arguments[position] = value
    with pytest.raises(error, match=message):
        torch.ops.maskrcnn_benchmark.rasterize_polygons(*arguments)
