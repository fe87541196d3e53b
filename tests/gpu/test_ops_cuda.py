"""CUDA kernels against the CPU kernels; needs a GPU and a build with CUDA kernels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from maskrcnn_benchmark.layers import (
    assign_levels,
    batched_nms,
    fpn_roi_align,
    has_cuda_kernels,
    nms,
    paste_masks,
    polygon_mask_targets,
    roi_align,
)

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _needs_cuda() -> None:
    if not torch.cuda.is_available() or not has_cuda_kernels():
        pytest.skip("needs a GPU and native operations built with CUDA kernels")


def random_boxes(count: int, extent: float = 900.0) -> Tensor:
    g = torch.Generator().manual_seed(count)
    corner = torch.rand(count, 2, generator=g) * extent - 20
    return torch.cat([corner, corner + torch.rand(count, 2, generator=g) * 120], dim=1)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000, 2048, 2049, 9000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_nms(count: int, dtype: torch.dtype) -> None:
    boxes = random_boxes(count).to(dtype)
    scores = torch.rand(count, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(0, 5, (count,), generator=torch.Generator().manual_seed(2))
    for threshold in (0.0, 0.5, 0.7):
        assert torch.equal(nms(boxes.cuda(), scores.cuda(), threshold).cpu(), nms(boxes, scores, threshold))
        ours = batched_nms(boxes.cuda(), scores.cuda(), labels.cuda(), threshold).cpu()
        assert torch.equal(ours, batched_nms(boxes, scores, labels, threshold))


def test_nms_of_strange_boxes() -> None:
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor([[nan] * 4, [0, 0, inf, inf], [9, 9, 2, 2], [0, 0, 5, 5], [0, 0, 5, 5]])
    scores = torch.tensor([5.0, 4, 3, 2, 1])
    assert torch.equal(nms(boxes.cuda(), scores.cuda(), 0.5).cpu(), nms(boxes, scores, 0.5))


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_roi_align(ratio: int, dtype: torch.dtype) -> None:
    features = torch.randn(2, 20, 50, 60).to(dtype)
    rois = torch.cat([torch.arange(200)[:, None] % 2, random_boxes(200, 300.0)], dim=1)
    grad = torch.randn(200, 20, 7, 7).to(dtype)
    results = []
    for device in ("cpu", "cuda"):
        x = features.to(device).requires_grad_()
        out = roi_align(x, rois.to(device), (7, 7), 0.25, ratio)
        out.backward(grad.to(device))
        assert x.grad is not None
        results.append((out.cpu(), x.grad.cpu()))
    loose = (
        {"rtol": 2e-2, "atol": 2e-2}
        if dtype in (torch.float16, torch.bfloat16)
        else {"rtol": 1e-4, "atol": 1e-4}
    )
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, **loose)


def test_roi_align_unusable_regions_and_empty_input() -> None:
    features = torch.randn(1, 2, 8, 8, device="cuda", requires_grad=True)
    rois = torch.tensor(
        [[0, 1, 1, 6, float("nan")], [3, 1, 1, 6, 6], [-1, 1, 1, 6, 6], [0, -1e30, 0, 1e30, 6]]
    )
    out = roi_align(features, rois.cuda(), (2, 2), 1.0, 0)
    assert out[:3].isnan().all() and out[3].isfinite().all()
    out[3].sum().backward()
    assert features.grad is not None and features.grad.isfinite().all()
    assert roi_align(features, rois[:0].cuda(), (2, 2), 1.0, 2).shape == (0, 2, 2, 2)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_fpn_roi_align(layout: torch.memory_format, dtype: torch.dtype) -> None:
    boxes = torch.cat([random_boxes(150), random_boxes(50) * torch.tensor([1.0, 1, 3, 3])])
    assert torch.equal(assign_levels(boxes.cuda(), 2, 5).cpu(), assign_levels(boxes, 2, 5))
    rois = torch.cat([torch.arange(200)[:, None] % 2, boxes], dim=1)
    scales = (0.25, 0.125, 0.0625, 0.03125)
    planar = [torch.randn(2, 20, 960 // s, 960 // s).to(dtype) for s in (4, 8, 16, 32)]
    grad, results = torch.randn(200, 20, 7, 7).to(dtype), []
    for device in ("cpu", "cuda"):
        maps = [m.to(device).contiguous(memory_format=layout).requires_grad_() for m in planar]
        out = fpn_roi_align(maps, rois.to(device), (7, 7), scales, 2)
        grads = torch.autograd.grad(out, maps, grad.to(device))
        assert all(g.stride() == m.stride() for g, m in zip(grads, maps, strict=True))
        results.append([t.detach().cpu() for t in (out, *grads)])
    tolerance = 2e-2 if dtype in (torch.float16, torch.bfloat16) else 1e-4
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=tolerance, atol=tolerance)


def test_fpn_roi_align_empty_and_opcheck() -> None:
    maps = [torch.randn(1, 2, s, s, device="cuda", requires_grad=True) for s in (16, 8)]
    assert fpn_roi_align(maps, torch.zeros(0, 5, device="cuda"), (2, 2), (0.25, 0.125), 2).shape == (
        0,
        2,
        2,
        2,
    )
    rois = torch.cat([torch.zeros(9, 1), random_boxes(9, 60.0)], dim=1).cuda()
    opcheck(
        torch.ops.maskrcnn_benchmark.fpn_roi_align.default, (maps, rois, [0.25, 0.125], 2, 2, 2, 4, 224.0)
    )


def test_paste_masks() -> None:
    masks, boxes = torch.rand(50, 28, 28), random_boxes(50)
    boxes[0], boxes[1, 2] = float("nan"), 1e30
    cpu, cuda = paste_masks(masks, boxes, 600, 800), paste_masks(masks.cuda(), boxes.cuda(), 600, 800)
    assert torch.equal(cuda.cpu(), cpu)
    assert paste_masks(masks[:0].cuda(), boxes[:0].cuda(), 20, 30).shape == (0, 20, 30)


@pytest.mark.parametrize("size", [1, 14, 28, 33, 112])
def test_polygon_mask_targets(size: int) -> None:
    g = torch.Generator().manual_seed(size)
    polygons = [[torch.rand(2 * n, generator=g) * 200 for n in (3, 8, 100)[: i % 4]] for i in range(12)]
    owners, boxes = torch.randint(0, 12, (300,), generator=g), random_boxes(300, 150.0)
    cpu = polygon_mask_targets(polygons, owners, boxes, size, (200, 200))
    cuda = polygon_mask_targets(polygons, owners.cuda(), boxes.cuda(), size, (200, 200))
    assert torch.equal(cuda.cpu(), cpu)


def test_wrong_offsets_draw_nothing() -> None:
    op = torch.ops.maskrcnn_benchmark.rasterize_polygons
    coords, boxes = torch.zeros(4, 2, device="cuda"), torch.zeros(2, 4, device="cuda")
    for polygons, instances in (([0, 900], [0, 1]), ([-5, 4], [0, 1]), ([0, 4], [0, 70])):
        tensors = [torch.tensor(values, device="cuda") for values in (polygons, instances, [0, 99])]
        assert not op(coords, *tensors, boxes, 10, 10, 14).any()


def test_opcheck_and_mixed_devices() -> None:
    boxes, scores = random_boxes(20).cuda(), torch.rand(20).cuda()
    opcheck(torch.ops.maskrcnn_benchmark.nms.default, (boxes, scores, 0.5))
    features = torch.randn(1, 2, 8, 8, device="cuda", requires_grad=True)
    rois = torch.cat([torch.zeros(20, 1, device="cuda"), boxes], dim=1)
    opcheck(torch.ops.maskrcnn_benchmark.roi_align.default, (features, rois, 0.1, 2, 2, 2))
    with pytest.raises(ValueError, match="scores must be on cuda:0 like boxes, got cpu"):
        nms(boxes, scores.cpu(), 0.5)
