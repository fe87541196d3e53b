"""Quadrant masks, their loss and their assembly against compositions of plain torch operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.layers import (
    assemble_masks,
    crop_split,
    crop_split_gt,
    quadrant_mask_loss,
    quadrant_masks,
)

NAN = float("nan")


def reference_masks(coefficients: Tensor, basis: Tensor, boxes: Tensor, grid_size: int = 2) -> Tensor:
    """The planes of all grid cells, then crop split."""
    split = coefficients.reshape(len(coefficients), grid_size**2, len(basis))
    planes = torch.einsum("nck,khw->chwn", split, basis).sigmoid()
    return crop_split(planes, boxes, grid_size).permute(2, 0, 1)


def reference_loss(
    coefficients: Tensor, basis: Tensor, boxes: Tensor, targets: Tensor, index: Tensor, grid_size: int = 2
) -> Tensor:
    """torch's cross entropy of the planes, with target and mask 0 outside the box."""
    masks = reference_masks(coefficients, basis, boxes, grid_size)
    planes = (targets[index] != 0).to(masks.dtype).permute(1, 2, 0)
    cropped = crop_split_gt(planes, boxes).permute(2, 0, 1)
    return F.binary_cross_entropy(masks, cropped, reduction="none").sum((1, 2))


def reference_assembly(masks: Tensor, resized: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The soft masks (n, H, W) resized as a whole, compared with 0.4, cropped or padded."""
    assembled = F.interpolate(masks[None], size=resized, mode="bilinear", align_corners=False)[0] > 0.4
    out = torch.zeros(len(masks), *size, dtype=torch.bool)
    height, width = min(size[0], resized[0]), min(size[1], resized[1])
    out[:, :height, :width] = assembled[:, :height, :width]
    return out


def random_case(
    count: int, maps: int, height: int, width: int, grid_size: int = 2, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients, basis, and boxes across all borders of the plane, some on whole pixels, some inverted."""
    g = torch.Generator().manual_seed(seed)
    limits = torch.tensor([width, height])
    corner = (torch.rand(count, 2, generator=g) * 1.4 - 0.3) * limits
    boxes = torch.cat([corner, corner + (torch.rand(count, 2, generator=g) * 1.1 - 0.1) * limits], dim=1)
    boxes[::3] = boxes[::3].round()
    coefficients = torch.randn(count, grid_size**2 * maps, generator=g)
    return coefficients, torch.randn(maps, height, width, generator=g), boxes


def random_targets(count: int, height: int, width: int, instances: int) -> tuple[Tensor, Tensor]:
    """Bool (count, H, W) and the target of each instance."""
    g = torch.Generator().manual_seed(instances)
    targets = torch.rand(count, height, width, generator=g) > 0.5
    return targets, torch.randint(0, count, (instances,), generator=g)


def slopes(function: Callable[..., Tensor], leaves: list[Tensor], *arguments: object) -> list[Tensor]:
    """Result of function(*leaves, *arguments), and the gradients under a fixed random cotangent."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    out = function(*leaves, *arguments)
    generator = torch.Generator().manual_seed(5)
    cotangent = torch.randn(out.shape, generator=generator, dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, cotangent)]


SIZES = (st.integers(0, 9), st.integers(1, 9), st.integers(0, 30), st.integers(0, 45), st.integers(1, 3))


@settings(max_examples=30, deadline=None)
@given(*SIZES, st.integers(0, 999))
def test_masks_equal_reference(
    count: int, maps: int, height: int, width: int, grid_size: int, seed: int
) -> None:
    coefficients, basis, boxes = random_case(count, maps, height, width, grid_size, seed)
    ours = slopes(quadrant_masks, [coefficients, basis], boxes, grid_size)
    expected = slopes(reference_masks, [coefficients, basis], boxes, grid_size)
    assert ours[0].shape == (count, height, width) and ours[0].dtype == torch.float32
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-5)
    assert torch.equal(ours[0] == 0, expected[0] == 0), "exactly the pixels of the boxes"


@settings(max_examples=30, deadline=None)
@given(*SIZES, st.integers(0, 999))
def test_loss_equals_reference(
    count: int, maps: int, height: int, width: int, grid_size: int, seed: int
) -> None:
    coefficients, basis, boxes = random_case(count, maps, height, width, grid_size, seed)
    targets, index = random_targets(3, height, width, count)
    ours = slopes(quadrant_mask_loss, [coefficients, basis], boxes, targets, index, grid_size)
    expected = slopes(reference_loss, [coefficients, basis], boxes, targets, index, grid_size)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(*[st.integers(1, 90)] * 2, *[st.integers(0, 80)] * 2, st.integers(0, 999))
def test_assembly_equals_reference(tall: int, wide: int, height: int, width: int, seed: int) -> None:
    coefficients, basis, boxes = random_case(7, 5, 21, 26, seed=seed)
    expected = reference_assembly(quadrant_masks(coefficients, basis, boxes), (tall, wide), (height, width))
    got = assemble_masks(coefficients, basis, boxes, 2, tall, wide, height, width, 0.4)
    assert torch.equal(got, expected)


def test_channels_are_ordered_by_cell_then_map() -> None:
    """One map of ones: each grid cell shows the sigmoid of its coefficient, grid cells row by row."""
    masks = quadrant_masks(torch.arange(-1.0, 3)[None], torch.ones(1, 4, 4), torch.tensor([[0.0, 0, 4, 4]]))
    corners = masks[0, [0, 0, 3, 3], [0, 3, 0, 3]]
    torch.testing.assert_close(corners, torch.arange(-1.0, 3).sigmoid())


def test_known_loss() -> None:
    """Probability one half everywhere: log 2 per pixel of the box, none outside."""
    boxes = torch.tensor([[1.0, 2, 4, 7], [-5, -5, 2, 2], [3, 3, 3, 3]])
    loss = quadrant_mask_loss(
        torch.zeros(3, 8), torch.ones(2, 9, 9), boxes, torch.ones(1, 9, 9).byte(), torch.zeros(3).long()
    )
    torch.testing.assert_close(loss, torch.tensor([15.0, 4, 0]) * 0.693147)


@pytest.mark.parametrize(
    "value", [-3e38, -200.0, -95.0, -87.5, -30.0, -16.0, 0.0, 9.0, 16.0, 18.0, 200.0, 3e38]
)
@pytest.mark.parametrize("target", [0, 1])
def test_loss_of_extreme_logits_is_that_of_torch(value: float, target: int) -> None:
    """Each logarithm ends at -100, the gradient is bounded."""
    arguments = (torch.tensor([[0.0, 0, 1, 1]]), torch.full((1, 1, 1), target).byte(), torch.tensor([0]), 1)
    leaves = [torch.tensor([[float(value)]]), torch.ones(1, 1, 1)]
    ours = slopes(quadrant_mask_loss, leaves, *arguments)
    expected = slopes(reference_loss, leaves, *arguments)
    for a, b in zip(ours[:2], expected[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_float64_gradients() -> None:
    coefficients, basis, boxes = random_case(4, 3, 7, 9)
    leaves = [t.double().requires_grad_() for t in (coefficients, basis)]
    targets, index = random_targets(2, 7, 9, 4)
    assert torch.autograd.gradcheck(lambda c, b: quadrant_masks(c, b, boxes), leaves)
    assert torch.autograd.gradcheck(lambda c, b: quadrant_mask_loss(c, b, boxes, targets, index), leaves)


def test_mixed_types_are_computed_in_the_wider_one() -> None:
    coefficients, basis, boxes = random_case(4, 3, 7, 20)
    targets, index = random_targets(2, 7, 20, 4)
    half, brain = coefficients.half().requires_grad_(), basis.bfloat16().requires_grad_()
    for function, rest in ((quadrant_masks, ()), (quadrant_mask_loss, (targets, index))):
        out = function(half, brain, boxes, *rest)
        assert out.dtype == torch.float32
        assert torch.equal(out, function(half.float(), brain.float(), boxes, *rest))
        grads = torch.autograd.grad(out.sum(), (half, brain))
        assert [g.dtype for g in grads] == [torch.float16, torch.bfloat16]
        assert function(half.double(), brain, boxes, *rest).dtype == torch.float64
    sizes = (14, 40, 14, 40, 0.4)
    assembled = assemble_masks(half.detach(), brain.detach(), boxes, 2, *sizes)
    assert torch.equal(
        assembled, assemble_masks(half.detach().float(), brain.detach().float(), boxes, 2, *sizes)
    )


def test_threads_do_not_change_a_bit() -> None:
    coefficients, basis, boxes = random_case(40, 8, 70, 90)
    targets, index = random_targets(4, 70, 90, 40)
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        masks = slopes(quadrant_masks, [coefficients, basis], boxes)
        loss = slopes(quadrant_mask_loss, [coefficients, basis], boxes, targets, index)
        assembled = assemble_masks(coefficients, basis, boxes, 2, 140, 180, 140, 180, 0.4)
        results.append([*masks, *loss, assembled])
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for r in results[1:] for a, b in zip(r, results[0], strict=True))


@pytest.mark.parametrize("box", [[3, 3, 3, 9], [9, 1, 3, 9], [NAN, 1, 5, 5], [1, 1, 5, NAN], [40, 0, 50, 9]])
def test_boxes_without_pixels(box: list[float]) -> None:
    """Empty inputs: no masks, no loss; the gradients are zeros, not missing."""
    boxes = torch.tensor([box], dtype=torch.float32)
    leaves = [torch.randn(1, 12), torch.randn(3, 8, 9)]
    targets, index = torch.ones(1, 8, 9).bool(), torch.tensor([0])
    results = slopes(quadrant_masks, leaves, boxes)
    results += slopes(quadrant_mask_loss, leaves, boxes, targets, index)
    assert all((result == 0).all() for result in results)
    assert not assemble_masks(*leaves, boxes, 2, 16, 18, 16, 18, 0.0).any()


def test_one_pixel() -> None:
    masks = quadrant_masks(torch.zeros(1, 4), torch.ones(1, 5, 6), torch.tensor([[2.0, 3, 3, 4]]))
    assert masks.nonzero().tolist() == [[0, 3, 2]] and masks.max() == 0.5


def test_nan_shows_where_it_is_and_nowhere_else() -> None:
    coefficients, basis, _ = random_case(2, 3, 8, 20)
    boxes = torch.tensor([[0.0, 0, 6, 6], [7, 2, 12, 7]])
    targets, index = random_targets(2, 8, 20, 2)
    basis[1, 3, 6] = basis[1, 7, 8] = NAN  # beside the boxes
    for function, rest in ((quadrant_masks, ()), (quadrant_mask_loss, (targets, index))):
        assert all(
            result.isfinite().all() for result in slopes(function, [coefficients, basis], boxes, *rest)
        )
    basis[1, 3, 5] = NAN  # in the top right grid cell of the first
    masks = quadrant_masks(coefficients, basis, boxes)
    assert masks.isnan().nonzero().tolist() == [[0, 3, 5]]
    loss, to_coefficients, to_basis = slopes(quadrant_mask_loss, [coefficients, basis], boxes, targets, index)
    assert loss.isnan().tolist() == [True, False]
    assert to_coefficients.isnan().any(1).tolist() == [True, False]
    assert to_basis.isnan().any(0).nonzero().tolist() == [[3, 5]]


def test_nothing_is_kept_for_the_backward_pass_of_the_loss() -> None:
    """Only the arguments are: no plane per instance."""
    coefficients, basis, boxes = random_case(4, 3, 7, 9)
    targets, index = random_targets(2, 7, 9, 4)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        quadrant_mask_loss(coefficients.requires_grad_(), basis, boxes, targets, index)
    arguments = {t.data_ptr() for t in (coefficients, basis, boxes, targets, index)}
    assert {t.data_ptr() for t in kept} <= arguments


CASE = dict(zip(("coefficients", "basis", "boxes"), random_case(4, 3, 7, 9), strict=True))
LOSS = CASE | {"targets": torch.zeros(2, 7, 9).bool(), "target_index": torch.tensor([0, 1, 1, 0])}
SIZES_OF_ASSEMBLY = {
    "grid_size": 2,
    "resized_h": 9,
    "resized_w": 9,
    "height": 9,
    "width": 9,
    "threshold": 0.4,
}


@pytest.mark.parametrize(
    ("function", "change", "error", "message"),
    [
        (
            quadrant_masks,
            {"grid_size": 3},
            ValueError,
            r"must have 27 columns \(3 x 3 grid cells, .*12",
        ),
        (quadrant_masks, {"grid_size": 0}, ValueError, "grid_size must be from 1 to 64, got 0"),
        (quadrant_masks, {"basis": torch.zeros(7, 9)}, ValueError, r"basis must have shape \(K, H, W\)"),
        (quadrant_masks, {"basis": torch.zeros(0, 7, 9)}, ValueError, "K must be from 1"),
        (quadrant_masks, {"basis": torch.zeros(3, 7, 9).int()}, TypeError, "basis must be float32.*got Int"),
        (quadrant_masks, {"boxes": torch.zeros(3, 4)}, ValueError, r"boxes must have shape \(n, 4\)"),
        (
            quadrant_masks,
            {"coefficients": torch.zeros(4, 12).bool()},
            TypeError,
            "must be float32",
        ),
        (
            quadrant_mask_loss,
            {"targets": torch.zeros(2, 9, 7).bool()},
            ValueError,
            r"targets .* got \(2, 9,",
        ),
        (quadrant_mask_loss, {"targets": torch.zeros(2, 7, 9)}, TypeError, "targets must be bool or uint8"),
        (quadrant_mask_loss, {"target_index": torch.zeros(3).long()}, ValueError, "target_index must have"),
        (quadrant_mask_loss, {"target_index": torch.zeros(4).int()}, TypeError, "target_index must be Long"),
        (
            quadrant_mask_loss,
            {"target_index": torch.tensor([0, 1, 2, 0])},
            ValueError,
            r"target_index\[2\] must be from 0 to 1, got 2",
        ),
        (assemble_masks, {"resized_h": 0}, ValueError, "resized_h must be from 1 .* got 0"),
        (assemble_masks, {"width": -1}, ValueError, "width must be from 0 .* got -1"),
        (assemble_masks, {"threshold": -0.1}, ValueError, "threshold must be from 0 to 1, got -0.1"),
        (assemble_masks, {"basis": torch.zeros(3, 0, 9)}, ValueError, "basis must have pixels"),
    ],
)
def test_bad_arguments(function: Callable, change: dict, error: type[Exception], message: str) -> None:
    base = {quadrant_masks: CASE, quadrant_mask_loss: LOSS, assemble_masks: CASE | SIZES_OF_ASSEMBLY}
    with pytest.raises(error, match=rf"^{function.__name__}: .*{message}"):
        function(**(base[function] | change))
