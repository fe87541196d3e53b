"""RoI max pooling, focal loss and RetinaNet on a GPU against the CPU; what deterministic mode reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.layers import (
    fpn_roi_align,
    has_cuda_kernels,
    nms,
    roi_align,
    roi_pool,
    sigmoid_focal_loss,
)
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.structures import BoxList

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
OPS = torch.ops.maskrcnn_benchmark


@pytest.fixture(autouse=True)
def _needs_cuda() -> None:
    if not torch.cuda.is_available() or not has_cuda_kernels():
        pytest.skip("needs a GPU and native operations built with CUDA kernels")


def random_rois(count: int) -> Tensor:
    """RoIs of two images of 240 x 200, some across the border, some inverted."""
    g = torch.Generator().manual_seed(count)
    corner = torch.rand(count, 2, generator=g) * 240 - 20
    sides = torch.rand(count, 2, generator=g) * 120 - 5
    return torch.cat([torch.arange(count)[:, None] % 2, corner, corner + sides], dim=1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", DTYPES)
def test_roi_pool(layout: torch.memory_format, dtype: torch.dtype) -> None:
    features, rois = torch.randn(2, 20, 50, 60).to(dtype), random_rois(200)
    rois[0, 3], rois[1, 2] = float("nan"), float("inf")
    grad, results = torch.randn(200, 20, 7, 5).to(dtype), []
    for device in ("cpu", "cuda"):
        x = features.to(device).contiguous(memory_format=layout).requires_grad_()
        out = roi_pool(x, rois.to(device), (7, 5), 0.25)
        out.backward(grad.to(device))
        assert x.grad is not None
        results.append((out.detach().cpu(), x.grad.cpu()))
    assert torch.equal(results[0][0].nan_to_num(77), results[1][0].nan_to_num(77))
    tolerance = 2e-2 if dtype in (torch.float16, torch.bfloat16) else 1e-5
    torch.testing.assert_close(results[1][1], results[0][1], rtol=tolerance, atol=tolerance)


def test_roi_pool_image_index_outside_and_empty_input() -> None:
    features = torch.randn(1, 2, 8, 8, device="cuda", requires_grad=True)
    rois = torch.tensor([[3.0, 1, 1, 6, 6], [-1, 1, 1, 6, 6], [0, 1, 1, 6, 6]], device="cuda")
    out = roi_pool(features, rois, (2, 2), 1.0)
    assert out[:2].isnan().all() and out[2].isfinite().all()
    out.nan_to_num().sum().backward()
    assert features.grad is not None and features.grad.sum().item() == pytest.approx(8.0)
    assert roi_pool(features, rois[:0], (2, 2), 1.0).shape == (0, 2, 2, 2)


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_focal_loss(gamma: float, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    logits = (torch.randn(3000, 37, generator=g) * 8).to(dtype)
    targets = torch.randint(-1, 38, (3000,), generator=g)
    logits[0, :2] = torch.tensor([100.0, -100.0]).to(dtype)
    results = []
    for device in ("cpu", "cuda"):
        x = logits.to(device).requires_grad_()
        each = sigmoid_focal_loss(x, targets.to(device), gamma=gamma, alpha=0.25, reduction="none")
        total = sigmoid_focal_loss(x, targets.to(device), gamma=gamma, alpha=0.25)
        assert total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        (grad,) = torch.autograd.grad(total, x)
        results.append([t.detach().cpu().double() for t in (each, total, grad)])
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 1e-2}.get(dtype, 2e-5)
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=tolerance, atol=1e-6)


def test_focal_loss_is_the_same_in_every_run() -> None:
    logits = torch.randn(50_000, 80, device="cuda")
    targets = torch.randint(-1, 81, (50_000,), device="cuda")
    sums = {sigmoid_focal_loss(logits, targets, gamma=2.0, alpha=0.25).item() for _ in range(5)}
    assert len(sums) == 1
    assert sigmoid_focal_loss(logits[:0], targets[:0], gamma=2.0, alpha=0.25) == 0


def test_opcheck() -> None:
    features, rois = torch.randn(2, 3, 8, 8, device="cuda", requires_grad=True), random_rois(9).cuda()
    opcheck(OPS.roi_pool.default, (features, rois, 0.1, 2, 2))
    logits, targets = torch.randn(9, 4, device="cuda", requires_grad=True), torch.arange(9).cuda() % 6 - 1
    for op in (OPS.sigmoid_focal_loss, OPS.sigmoid_focal_loss_sum):
        opcheck(op.default, (logits, targets, 2.0, 0.25))
    opcheck(OPS.sigmoid_focal_loss_backward.default, (torch.ones_like(logits), logits, targets, 1.5, 0.25))


def _deterministic(call: Callable[[], object]) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        call()
    finally:
        torch.use_deterministic_algorithms(False)


def test_deterministic_mode_reports_atomic_additions() -> None:
    """Backward passes that add with atomics report it; everything else runs."""
    features = torch.randn(2, 3, 16, 16, device="cuda", requires_grad=True)
    half, rois = torch.randn(2, 3, 8, 8, device="cuda"), random_rois(9).cuda()
    pooled = {
        "roi_align": roi_align(features, rois, (2, 2), 0.1, 2),
        "roi_align ": fpn_roi_align([features, half], rois, (2, 2), (0.25, 0.125), 2),
        "roi_pool": roi_pool(features, rois, (2, 2), 0.1),
    }
    for name, out in pooled.items():
        with pytest.raises(RuntimeError, match=f"{name.strip()}_backward on CUDA does not"):
            _deterministic(lambda out=out: torch.autograd.grad(out.sum(), features))  # type: ignore[misc]
    logits = torch.randn(9, 4, device="cuda", requires_grad=True)
    targets = torch.arange(9).cuda() % 6 - 1
    _deterministic(lambda: sigmoid_focal_loss(logits, targets, gamma=2.0, alpha=0.25).backward())
    _deterministic(lambda: nms(rois[:, 1:], rois[:, 1], 0.5))


@pytest.mark.slow
def test_more_than_2_to_the_31_numbers() -> None:
    if torch.cuda.mem_get_info()[0] < 16 * 2**30:
        pytest.skip("needs 16 GB of free GPU memory")
    features = torch.zeros(1, 2, 33_000, 33_000, device="cuda", dtype=torch.float16)
    features[0, 1, -40:, -40:] = 3
    rois = torch.tensor([[0.0, 32_965, 32_965, 32_990, 32_990]], device="cuda")
    assert roi_align(features, rois, (1, 1), 1.0, 2).flatten().tolist() == [0, 3]
    assert roi_pool(features, rois, (1, 1), 1.0).flatten().tolist() == [0, 3]
    logits = features.view(-1, 66_000)
    targets = torch.zeros(33_000, dtype=torch.int64, device="cuda")
    total = sigmoid_focal_loss(logits, targets, gamma=2.0, alpha=0.25).item()
    assert total == pytest.approx(0.75 * 0.25 * 0.693147 * logits.numel(), rel=1e-3)


def test_retinanet_trains_and_detects_like_the_cpu(project_root: Path) -> None:
    path = project_root / "configs" / "tiny" / "retinanet_R_18_FPN_gn.yaml"
    cfg = load_config(path, ["MODEL.RETINANET.INFERENCE_TH", 0.001])
    torch.manual_seed(0)
    model = build_detection_model(cfg)
    images = list(torch.randn(2, 3, 128, 128))
    target = BoxList(torch.tensor([[5.0, 8, 60, 70], [50, 50, 120, 110]]), (128, 128))
    target.add_field("labels", torch.tensor([3, 24]))
    results = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        model.to(device).train().zero_grad()
        there = [image.to(device) for image in images]
        losses = model(there, [target.to(device)] * 2)
        torch.stack(list(losses.values())).sum().backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm().item()
        detections = model.eval()(there)[0]
        values = {name: loss.item() for name, loss in losses.items()}
        results.append((values, norm, detections.get_field("scores").cpu()))
    (values, norm, scores), (on_gpu, gpu_norm, gpu_scores) = results
    assert on_gpu == pytest.approx(values, rel=1e-3) and gpu_norm == pytest.approx(norm, rel=1e-2)
    torch.testing.assert_close(gpu_scores[:20], scores[:20], rtol=1e-2, atol=1e-4)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        model.train()(there, [target.to(device)] * 2)["loss_retina_cls"].backward()
