"""Crop split and quadrant masks on a GPU against the CPU; the same bits in every run."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from maskrcnn_benchmark.layers import (
    assemble_masks,
    crop_split,
    has_cuda_kernels,
    quadrant_mask_loss,
    quadrant_masks,
)

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
OPS = torch.ops.maskrcnn_benchmark
HEIGHT, WIDTH = 75, 90
NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def _needs_cuda() -> None:
    if not torch.cuda.is_available() or not has_cuda_kernels():
        pytest.skip("needs a GPU and native operations built with CUDA kernels")


def random_boxes(count: int) -> Tensor:
    """Boxes across all borders, some on whole pixels, inverted, with a NaN or infinite."""
    g = torch.Generator().manual_seed(count)
    limits = torch.tensor([WIDTH, HEIGHT])
    corner = (torch.rand(count, 2, generator=g) * 1.4 - 0.3) * limits
    boxes = torch.cat([corner, corner + (torch.rand(count, 2, generator=g) * 1.1 - 0.1) * limits], dim=1)
    boxes[::3] = boxes[::3].round()
    boxes[0, 1], boxes[1] = NAN, torch.tensor([-INF, -1e9, INF, 40.5])
    return boxes


def random_case(count: int, maps: int, grid_size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients, basis and boxes on the CPU."""
    g = torch.Generator().manual_seed(maps)
    coefficients = torch.randn(count, grid_size**2 * maps, generator=g) / maps**0.5
    return (
        coefficients.to(dtype),
        torch.randn(maps, HEIGHT, WIDTH, generator=g).to(dtype),
        random_boxes(count),
    )


def random_targets(count: int) -> tuple[Tensor, Tensor]:
    """Five target masks on the CPU and the index of each instance."""
    g = torch.Generator().manual_seed(count)
    targets = torch.rand(5, HEIGHT, WIDTH, generator=g) > 0.5
    return targets, torch.randint(0, 5, (count,), generator=g)


def compare(results: list[list[Tensor]], dtype: torch.dtype) -> None:
    """Assert that results are close, one by one, CPU first."""
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float64: 1e-9}.get(dtype, 2e-5)
    for cpu, cuda in zip(*results, strict=True):
        assert cpu.dtype == cuda.dtype
        torch.testing.assert_close(cuda, cpu, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("grid_size", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_crop_split(grid_size: int, dtype: torch.dtype) -> None:
    data, boxes = torch.randn(grid_size**2, HEIGHT, WIDTH, 30).to(dtype), random_boxes(30)
    grad, results = torch.randn(HEIGHT, WIDTH, 30).to(dtype), []
    for device in ("cpu", "cuda"):
        leaf = data.to(device).requires_grad_()
        out = crop_split(leaf, boxes.to(device), grid_size)
        (slope,) = torch.autograd.grad(out, leaf, grad.to(device))
        results.append((out.detach().cpu(), slope.cpu()))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize(("maps", "grid_size"), [(32, 2), (5, 3), (70, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_and_loss(maps: int, grid_size: int, dtype: torch.dtype) -> None:
    coefficients, basis, boxes = random_case(40, maps, grid_size, dtype)
    targets, index = random_targets(40)
    results: list[list[Tensor]] = []
    for device in ("cpu", "cuda"):
        leaves = [t.to(device).requires_grad_() for t in (coefficients, basis)]
        masks = quadrant_masks(*leaves, boxes.to(device), grid_size)
        loss = quadrant_mask_loss(*leaves, boxes.to(device), targets.to(device), index.to(device), grid_size)
        weights = torch.linspace(-1, 1, 40, device=device, dtype=masks.dtype)
        grads = torch.autograd.grad((masks.sum((1, 2)) * weights).sum(), leaves)
        grads += torch.autograd.grad((loss * weights).sum(), leaves)
        results.append([t.detach().cpu() for t in (masks, loss, *grads)])
    compare(results, dtype)


RESIZED = [((150, 180), (150, 180)), ((211, 263), (200, 280)), ((40, 30), (50, 20))]


@pytest.mark.parametrize(("resized", "size"), RESIZED)
def test_assembly(resized: tuple[int, int], size: tuple[int, int]) -> None:
    coefficients, basis, boxes = random_case(300, 8, 2, torch.float32)
    cpu = assemble_masks(coefficients, basis, boxes, 2, *resized, *size, 0.4)
    cuda = assemble_masks(coefficients.cuda(), basis.cuda(), boxes.cuda(), 2, *resized, *size, 0.4).cpu()
    assert (cpu != cuda).sum() <= 1e-5 * cpu.sum(), "only pixels at the threshold may differ"


def test_the_same_bits_in_every_run_and_in_deterministic_mode() -> None:
    coefficients, basis, boxes = (t.cuda() for t in random_case(200, 32, 2, torch.float32))
    targets, index = (t.cuda() for t in random_targets(200))
    leaves = [coefficients.requires_grad_(), basis.requires_grad_()]

    def run() -> list[Tensor]:
        masks = quadrant_masks(*leaves, boxes)
        loss = quadrant_mask_loss(*leaves, boxes, targets, index)
        assembled = assemble_masks(*leaves, boxes, 2, 150, 180, 150, 180, 0.4)
        grads = torch.autograd.grad(masks.sum() + loss.sum(), leaves)
        return [masks, loss, assembled, *grads, crop_split(basis.detach()[:4, ..., None], boxes[2:3])]

    first = run()
    torch.use_deterministic_algorithms(True)
    try:
        assert all(torch.equal(a, b) for _ in range(3) for a, b in zip(first, run(), strict=True))
    finally:
        torch.use_deterministic_algorithms(False)


def test_unknown_target_gives_nan_and_empty_input_zeros() -> None:
    coefficients, basis, boxes = (t.cuda() for t in random_case(3, 4, 2, torch.float32))
    boxes[:] = torch.tensor([1.0, 1, 9, 9])
    targets, index = torch.ones(2, HEIGHT, WIDTH, device="cuda").bool(), torch.tensor([1, 2, -1]).cuda()
    leaves = [coefficients.requires_grad_(), basis.requires_grad_()]
    loss = quadrant_mask_loss(*leaves, boxes, targets, index)
    assert loss.isnan().tolist() == [False, True, True]
    none = quadrant_mask_loss(coefficients[:0], basis, boxes[:0], targets, index[:0])
    assert none.shape == (0,)
    grads = torch.autograd.grad(none.sum() + quadrant_masks(coefficients[:0], basis, boxes[:0]).sum(), leaves)
    assert all((grad == 0).all() for grad in grads)
    assert assemble_masks(coefficients[:0], basis, boxes[:0], 2, 9, 9, 9, 9, 0.4).shape == (0, 9, 9)


def test_opcheck() -> None:
    coefficients, basis, boxes = (t.cuda() for t in random_case(6, 4, 2, torch.float32))
    targets, index = (t.cuda() for t in random_targets(6))
    leaves = (coefficients.requires_grad_(), basis.requires_grad_(), boxes)
    opcheck(OPS.quadrant_masks.default, (*leaves, 2))
    opcheck(OPS.quadrant_mask_loss.default, (*leaves, targets, index, 2))
    opcheck(OPS.assemble_masks.default, (*leaves, 2, 90, 90, 90, 90, 0.4))
    opcheck(OPS.crop_split.default, (torch.randn(4, 9, 9, 6, device="cuda", requires_grad=True), boxes, 2))
