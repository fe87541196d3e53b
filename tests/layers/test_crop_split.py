"""crop_split and crop_split_gt against a gather; the published outputs are checked in tests/parity."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskrcnn_benchmark.layers import crop_split, crop_split_gt

INF, NAN = float("inf"), float("nan")


def cell_of(low: Tensor, high: Tensor, side: int, grid_size: int) -> Tensor:
    """(side, n): grid cell of every pixel along one axis of every box, -1 outside."""
    size = ((high - low).double() + 0.1).div(grid_size).float()
    pixel = torch.arange(side, dtype=torch.float32)[:, None]
    cell = ((pixel - low) / size).long()
    return torch.where((pixel >= low) & (pixel < high), cell.clamp(max=grid_size - 1), -1)


def cell_map(boxes: Tensor, height: int, width: int, grid_size: int) -> Tensor:
    """(H, W, n): the plane each pixel reads, -1 outside the box."""
    column = cell_of(boxes[:, 0], boxes[:, 2], width, grid_size)[None]
    row = cell_of(boxes[:, 1], boxes[:, 3], height, grid_size)[:, None]
    return torch.where((row >= 0) & (column >= 0), row * grid_size + column, -1)


def reference(data: Tensor, boxes: Tensor, grid_size: int) -> Tensor:
    """A gather along the planes, with zero outside."""
    cell = cell_map(boxes, data.shape[1], data.shape[2], grid_size)
    return torch.where(cell >= 0, data.gather(0, cell.clamp(min=0)[None])[0], 0)


def random_boxes(count: int, height: int, width: int, seed: int) -> Tensor:
    """Boxes across all borders of the plane, a few inverted or on whole pixels."""
    g = torch.Generator().manual_seed(seed)
    limits = torch.tensor([width, height])
    corner = (torch.rand(count, 2, generator=g) * 1.4 - 0.3) * limits
    boxes = torch.cat([corner, corner + (torch.rand(count, 2, generator=g) * 1.2 - 0.1) * limits], dim=1)
    boxes[::3] = boxes[::3].round()
    return boxes


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9), st.integers(0, 20), st.integers(0, 20), st.integers(1, 5), st.integers(0, 999))
def test_equal_to_a_gather(count: int, height: int, width: int, grid_size: int, seed: int) -> None:
    boxes = random_boxes(count, height, width, seed)
    g = torch.Generator().manual_seed(seed)
    data = torch.randn(grid_size**2, height, width, count, generator=g)
    grad = torch.randn(height, width, count, generator=g)
    results = []
    for function in (crop_split, reference):
        leaf = data.clone().requires_grad_()
        out = function(leaf, boxes, grid_size)
        (slope,) = torch.autograd.grad(out, leaf, grad)
        results.append((out.detach(), slope))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert torch.equal(crop_split_gt(data[0], boxes), reference(data[:1], boxes, 1))


def test_two_by_two_cells() -> None:
    """A pixel exactly in the middle belongs to the first grid cell."""
    data = torch.arange(1.0, 5)[:, None, None, None].expand(4, 4, 6, 1)
    out = crop_split(data, torch.tensor([[1.0, 0, 5, 4]]))[..., 0]
    assert out.tolist() == [[0, 1, 1, 1, 2, 0]] * 3 + [[0, 3, 3, 3, 4, 0]]


@pytest.mark.parametrize(
    "box",
    [
        [3, 3, 3, 9],
        [9, 1, 3, 9],
        [NAN, 1, 5, 5],
        [1, 1, 5, NAN],
        [40, 0, 50, 9],
        [-9, -9, 0, 9],
        [2.1, 2, 2.9, 5],
    ],
)
def test_boxes_without_pixels(box: list[float]) -> None:
    assert crop_split(torch.ones(4, 8, 9, 1), torch.tensor([box], dtype=torch.float32)).sum() == 0


def test_enormous_boxes_end_in_the_last_cell() -> None:
    """Where 0.1 is lost beside the side, the last pixel would be beyond the last grid cell."""
    data = torch.arange(1.0, 10)[:, None, None, None].expand(9, 6, 7, 3)
    boxes = torch.tensor([[-1e9, -1e9, 6.5, 5.5], [-INF, -INF, INF, INF], [-3e38, -3e38, 3e38, 3e38]])
    out = crop_split(data, boxes, 3)
    assert (out[:, :6, 0] == 9).all() and (out[..., 1:] > 0).all() and out.max() <= 9


def test_one_pixel() -> None:
    out = crop_split(torch.ones(4, 5, 5, 1), torch.tensor([[3.0, 1, 4, 2]]))
    assert out.nonzero().tolist() == [[1, 3, 0]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types_keep_the_numbers(dtype: torch.dtype) -> None:
    data, boxes = torch.randn(4, 9, 9, 5).to(dtype), random_boxes(5, 9, 9, 1)
    out = crop_split(data, boxes)
    assert out.dtype == dtype and torch.equal(out, reference(data, boxes, 2))


def test_gradcheck() -> None:
    data = torch.randn(4, 5, 6, 3, dtype=torch.float64, requires_grad=True)
    boxes = random_boxes(3, 5, 6, 4)
    assert torch.autograd.gradcheck(crop_split, (data, boxes))
    assert torch.autograd.gradgradcheck(crop_split, (data, boxes))
    assert torch.autograd.gradcheck(crop_split_gt, (data[0], boxes))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"data": torch.zeros(4, 5, 6)},
            ValueError,
            r"data must have shape \(grid_size \* grid_size, H, W, n\)",
        ),
        ({"data": torch.zeros(3, 5, 6, 2)}, ValueError, r"data must have .* got \(3, 5, 6, 2\)"),
        ({"data": torch.zeros(4, 5, 6, 2).int()}, TypeError, "data must be float32.* got Int"),
        ({"boxes": torch.zeros(3, 4)}, ValueError, r"boxes must have shape \(n, 4\).* got \(3, 4\)"),
        ({"boxes": torch.zeros(2, 4).long()}, TypeError, "boxes must be float32.* got Long"),
        ({"grid_size": 0}, ValueError, "grid_size must be from 1 to 64, got 0"),
        ({"grid_size": 65}, ValueError, "grid_size must be from 1 to 64, got 65"),
    ],
)
def test_bad_arguments(change: dict, error: type[Exception], message: str) -> None:
    arguments = {"data": torch.zeros(4, 5, 6, 2), "boxes": torch.zeros(2, 4), "grid_size": 2}
    with pytest.raises(error, match=message):
        crop_split(**(arguments | change))
