"""CUDA kernels of the deformable operations against the CPU kernels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from maskrcnn_benchmark.layers import DFConv2d, deform_conv2d, deform_psroi_pooling, has_cuda_kernels

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def _needs_cuda() -> None:
    if not torch.cuda.is_available() or not has_cuda_kernels():
        pytest.skip("needs a GPU and native operations built with CUDA kernels")


@pytest.fixture(autouse=True)
def _exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def conv_tensors(
    images: int, channels: int, out: int, groups: int, parts: int, dtype: torch.dtype
) -> list[Tensor]:
    """Features, offset, weight, bias, mask; offsets in float32 or float64."""
    g = torch.Generator().manual_seed(0)
    offset_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    draw = [
        torch.randn(images, channels, 19, 23, generator=g).to(dtype),
        (2 * torch.randn(images, 18 * parts, 10, 23, generator=g)).to(offset_dtype),
        (torch.randn(out, channels // groups, 3, 3, generator=g) / 10).to(dtype),
        torch.randn(out, generator=g).to(dtype),
        torch.rand(images, 9 * parts, 10, 23, generator=g).to(offset_dtype),
    ]
    return draw


def assert_close(cuda: Tensor, cpu: Tensor, dtype: torch.dtype) -> None:
    """Close relative to the largest value."""
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-5}.get(dtype, 2e-2)
    scale = cpu.abs().max().clamp(min=1e-6)
    torch.testing.assert_close(cuda.cpu() / scale, cpu / scale, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("channels", "groups", "parts"), [(24, 1, 1), (24, 2, 3), (20, 5, 2), (7, 1, 7)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_deform_conv2d(
    dtype: torch.dtype, channels: int, groups: int, parts: int, layout: torch.memory_format
) -> None:
    tensors = conv_tensors(3, channels, 10, groups, parts, dtype)
    tensors[0] = tensors[0].contiguous(memory_format=layout)
    for masked in (True, False):
        results = []
        for device in ("cpu", "cuda"):
            leaves = [t.to(device).detach().requires_grad_() for t in tensors[: 5 if masked else 4]]
            x, offset, weight, bias, *mask = leaves
            out = deform_conv2d(
                x, offset, weight, bias, stride=(2, 1), padding=1, mask=mask[0] if mask else None
            )
            cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
            grads = torch.autograd.grad(out, leaves, cotangent)
            assert out.stride() == results[0][0].stride() if results else True
            results.append([out.detach(), *grads])
        for cpu, cuda in zip(*results, strict=True):
            assert cuda.dtype == cpu.dtype
            assert_close(cuda, cpu, dtype)


def test_deform_conv2d_in_parts_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """More columns than one product takes: results do not depend on the neighbours in the batch."""
    x, offset = torch.randn(9, 256, 100, 96, device="cuda"), torch.randn(9, 18, 100, 96, device="cuda")
    weight = torch.randn(8, 256, 3, 3, device="cuda")
    out = deform_conv2d(x, offset, weight, padding=1)
    for i in (0, 8):
        alone = deform_conv2d(x[i : i + 1], offset[i : i + 1], weight, padding=1)
        torch.testing.assert_close(out[i : i + 1], alone, rtol=1e-4, atol=1e-3)


def test_deform_conv2d_unusable_places_and_empty_batch() -> None:
    x, offset = torch.randn(1, 2, 7, 7, device="cuda"), torch.zeros(1, 18, 7, 7, device="cuda")
    offset[0, :, 5, 5] = 1e30
    offset[0, 7, 3, 3], offset[0, 8, 4, 4] = float("nan"), float("-inf")
    out = deform_conv2d(x, offset, torch.ones(1, 2, 3, 3, device="cuda"), padding=1)
    assert out[0, 0, 5, 5] == 0 and out[0, 0, 3, 3].isnan() and out.isnan().sum() == 1
    layer = DFConv2d(4, 6, modulated=True).cuda()
    empty = layer(torch.zeros(0, 4, 8, 8, device="cuda", requires_grad=True))
    assert empty.shape == (0, 6, 8, 8)
    empty.sum().backward()


def test_autocast_and_compile() -> None:
    layer = DFConv2d(8, 6, deformable_groups=2, modulated=True).cuda()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 8, 17, 19, device="cuda", requires_grad=True)
    torch.testing.assert_close(compiled(x), layer(x), rtol=1e-4, atol=1e-4)
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cuda", dtype=dtype):
            out = layer(x)
        assert out.dtype == dtype
        out.float().sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.float32


def test_deterministic_mode_is_honoured() -> None:
    leaves = [t.cuda().requires_grad_() for t in conv_tensors(2, 8, 4, 1, 1, torch.float32)]
    x, offset, weight, _, mask = leaves
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="deform_conv2d_backward on CUDA"):
            deform_conv2d(x, offset, weight, stride=(2, 1), padding=1).sum().backward()
        out = deform_conv2d(x.detach(), offset, weight, stride=(2, 1), padding=1, mask=mask)
        out.sum().backward()  # without a gradient of the features nothing is added in random order
    finally:
        torch.use_deterministic_algorithms(False)


def ps_tensors(dtype: torch.dtype) -> list[Tensor]:
    """Features of 2 images with 6 * 4 channels, 40 RoIs, shifts for 3 classes."""
    g = torch.Generator().manual_seed(2)
    offset_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    corner = torch.rand(40, 2, generator=g) * 80 - 20
    rois = torch.cat(
        [torch.arange(40)[:, None] % 2, corner, corner + torch.rand(40, 2, generator=g) * 60], dim=1
    )
    trans = torch.randn(40, 6, 3, 3, generator=g)
    return [torch.randn(2, 24, 15, 17, generator=g).to(dtype), rois.to(offset_dtype), trans.to(offset_dtype)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_deform_psroi_pooling(dtype: torch.dtype) -> None:
    tensors, setting = ps_tensors(dtype), {"spatial_scale": 0.25, "output_dim": 6, "group_size": 2}
    setting |= {"pooled_size": 5, "part_size": 3, "sample_per_part": 3, "trans_std": 0.1}
    for moved in (True, False):
        results = []
        for device in ("cpu", "cuda"):
            x, rois, trans = (t.to(device).detach() for t in tensors)
            leaves = [x.requires_grad_(), trans.requires_grad_()][: 2 if moved else 1]
            out = deform_psroi_pooling(x, rois, trans if moved else None, **setting)
            cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
            results.append([out.detach(), *torch.autograd.grad(out, leaves, cotangent)])
        for cpu, cuda in zip(*results, strict=True):
            assert_close(cuda, cpu, dtype)


def test_deform_psroi_pooling_unusable_regions_and_empty_input() -> None:
    x = torch.randn(1, 4, 9, 9, device="cuda", requires_grad=True)
    rois = torch.tensor(
        [[0, 1, 1, 6, float("nan")], [3, 1, 1, 6, 6], [-1, 1, 1, 6, 6], [0, 1, 1, 6, 6]]
    ).cuda()
    out = deform_psroi_pooling(x, rois, spatial_scale=1.0, output_dim=4, pooled_size=2)
    assert out[:3].isnan().all() and out[3].isfinite().all()
    out.nansum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    empty = deform_psroi_pooling(x, rois[:0], spatial_scale=1.0, output_dim=4, pooled_size=2)
    assert empty.shape == (0, 4, 2, 2)


def test_opcheck() -> None:
    ops = torch.ops.maskrcnn_benchmark
    leaves = [t.cuda().requires_grad_() for t in conv_tensors(2, 8, 4, 2, 2, torch.float32)]
    x, offset, weight, bias, mask = leaves
    opcheck(ops.deform_conv2d.default, (x, offset, mask, weight, bias, [2, 1], [1, 1], [1, 1]))
    x, rois, trans = (t.cuda() for t in ps_tensors(torch.float32))
    arguments = (x.requires_grad_(), rois, trans.requires_grad_(), 0.25, 6, 2, 5, 3, 3, 0.1)
    opcheck(ops.deform_psroi_pooling.default, arguments)
