"""deform_conv2d, forward and backward, against a plain PyTorch reference; the modules around it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.library import opcheck
from torch.nn import functional as F

from maskrcnn_benchmark.layers import DeformConv2d, DFConv2d, FrozenBatchNorm2d, conv_norm, deform_conv2d
from maskrcnn_benchmark.utils.native import load_ops

load_ops()
OPS = torch.ops.maskrcnn_benchmark
HALF = [torch.float16, torch.bfloat16]


def reference(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> Tensor:
    """Samples by grid_sample, one tap and one group of channels at a time, then a matrix product."""
    height, width = x.shape[2:]
    rows, columns = weight.shape[2:]
    out_h, out_w = offset.shape[2:]
    taps, groups = rows * columns, x.shape[1] // weight.shape[1]
    parts = offset.shape[1] // (2 * taps)
    base_y = (torch.arange(out_h) * stride[0] - padding[0]).to(x)[:, None]
    base_x = (torch.arange(out_w) * stride[1] - padding[1]).to(x)
    sampled = []
    for part, channels in enumerate(x.chunk(parts, 1)):
        for k in range(taps):
            dy, dx = offset[:, 2 * (part * taps + k)], offset[:, 2 * (part * taps + k) + 1]
            y, z = base_y + k // columns * dilation[0] + dy, base_x + k % columns * dilation[1] + dx
            # Sizes of one pixel have no scale of their own in grid_sample.
            grid = torch.stack([(2 * z + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
            values = F.grid_sample(channels, grid, padding_mode="zeros", align_corners=False)
            sampled.append(values if mask is None else values * mask[:, part * taps + k, None])
    size = (len(x), parts, taps, x.shape[1] // parts, out_h, out_w)
    columns_of = torch.stack(sampled, 1).reshape(size).transpose(2, 3)
    grouped = columns_of.reshape(len(x), groups, -1, out_h * out_w)
    matrices = weight.reshape(groups, weight.shape[0] // groups, -1)
    out = (matrices @ grouped).reshape(len(x), -1, out_h, out_w)
    return out if bias is None else out + bias.view(1, -1, 1, 1)


def make(
    images: int = 2,
    channels: int = 4,
    out: int = 6,
    size: tuple[int, int] = (7, 9),
    *,
    kernel: tuple[int, int] = (3, 3),
    groups: int = 1,
    parts: int = 1,
    modulated: bool = True,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    **geometry: tuple[int, int],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors by name, and the geometry."""
    g = torch.Generator().manual_seed(seed)
    stride, padding, dilation = (
        geometry.get(n, d) for n, d in (("stride", (1, 1)), ("padding", (1, 1)), ("dilation", (1, 1)))
    )
    ends = [(size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)]
    taps = kernel[0] * kernel[1]

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    tensors = {
        "features": draw(images, channels, *size),
        "offset": 2 * draw(images, 2 * parts * taps, *ends),
        "weight": draw(out, channels // groups, *kernel),
        "bias": draw(out),
        "mask": draw(images, parts * taps, *ends).sigmoid() if modulated else None,
    }
    return tensors, {"stride": stride, "padding": padding, "dilation": dilation}


def compare(tensors: dict[str, Any], geometry: dict[str, Any], tolerance: float) -> None:
    """Values and all gradients against the reference."""
    leaves = {name: t.requires_grad_() for name, t in tensors.items() if t is not None}
    x, *rest = tensors.values()
    ours = deform_conv2d(**tensors, **geometry)
    expected = reference(x, rest[0], rest[1], rest[2], mask=rest[3], **geometry)
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)
    cotangent = torch.randn_like(ours)
    pairs = zip(
        torch.autograd.grad(ours, list(leaves.values()), cotangent),
        torch.autograd.grad(expected, list(leaves.values()), cotangent),
        strict=True,
    )
    for name, (a, b) in zip(leaves, pairs, strict=True):
        scale = max(1.0, b.abs().max().item())
        torch.testing.assert_close(
            a / scale, b / scale, rtol=tolerance, atol=tolerance, msg=lambda t, n=name: f"{n}: {t}"
        )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([(1, 1, 1), (8, 2, 4), (12, 6, 3), (40, 1, 2), (64, 8, 1), (36, 2, 12)]),
    st.tuples(st.integers(1, 3), st.integers(1, 4)),
    st.tuples(st.integers(1, 2), st.integers(1, 3)),
    st.tuples(st.integers(0, 3), st.integers(0, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.booleans(),
    st.integers(0, 99),
)
def test_equal_to_reference(images, channels, kernel, stride, padding, dilation, modulated, seed) -> None:
    total, groups, parts = channels
    tensors, geometry = make(
        images,
        total,
        2 * groups,
        (8, 11),
        kernel=kernel,
        groups=groups,
        parts=parts,
        modulated=modulated,
        seed=seed,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )
    compare(tensors, geometry, 1e-9)


def test_many_tiles_and_blocks() -> None:
    """More pixels than a tile, more channels than a block, several images per group of images."""
    tensors, geometry = make(6, 72, 20, (37, 41), groups=2, parts=4)
    compare(tensors, geometry, 1e-9)


def test_float32_equals_torchvision() -> None:
    """An independent implementation of the same definition."""
    tv = pytest.importorskip("torchvision")
    tensors, geometry = make(2, 48, 16, (20, 23), groups=2, parts=3, dtype=torch.float32, stride=(2, 1))
    x, offset, weight, bias, mask = tensors.values()
    theirs = tv.ops.deform_conv2d(x, offset, weight, bias, mask=mask, **geometry)
    torch.testing.assert_close(deform_conv2d(**tensors, **geometry), theirs, rtol=1e-4, atol=1e-4)


def test_without_offsets_it_is_a_convolution() -> None:
    tensors, geometry = make(parts=2, groups=2, dtype=torch.float32)
    tensors |= {"offset": torch.zeros_like(tensors["offset"]), "mask": None}
    plain = F.conv2d(tensors["features"], tensors["weight"], tensors["bias"], groups=2, **geometry)
    torch.testing.assert_close(deform_conv2d(**tensors, **geometry), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("modulated", [False, True])
def test_gradients(modulated: bool) -> None:
    tensors, geometry = make(1, 4, 2, (4, 5), groups=2, parts=2, modulated=modulated, stride=(1, 2))
    leaves = [t.requires_grad_() for t in tensors.values() if t is not None]

    def run(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor | None = None) -> Tensor:
        return deform_conv2d(x, offset, weight, bias, mask=mask, **geometry)

    assert torch.autograd.gradcheck(run, leaves)


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (3,), (4,), (0, 2), (1, 2), (0, 1), (3, 4)])
def test_gradients_needed_alone(needed: tuple[int, ...]) -> None:
    tensors, geometry = make(2, 40, 6, parts=2)
    every = [t.requires_grad_() for t in tensors.values()]
    everything = torch.autograd.grad(deform_conv2d(**tensors, **geometry).sin().sum(), every)
    for i, leaf in enumerate(every):
        leaf.requires_grad_(i in needed)
    some = torch.autograd.grad(deform_conv2d(**tensors, **geometry).sin().sum(), [every[i] for i in needed])
    for i, grad in zip(needed, some, strict=True):
        torch.testing.assert_close(grad, everything[i], rtol=1e-12, atol=1e-12)


def test_runs_repeat_to_the_bit_and_threads_change_rounding_only() -> None:
    tensors, geometry = make(5, 96, 32, (33, 40), parts=2, dtype=torch.float32)
    leaves = [t.requires_grad_() for t in tensors.values()]
    threads, results = torch.get_num_threads(), []
    for count in (1, 1, 2, 2, 3, 3):
        torch.set_num_threads(count)
        out = deform_conv2d(**tensors, **geometry)
        results.append([out, *torch.autograd.grad(out, leaves[:4], torch.ones_like(out))])
    torch.set_num_threads(threads)
    for first, again in zip(results[::2], results[1::2], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        for a, b in zip(first, results[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision(dtype: torch.dtype) -> None:
    """Close to float32 of the same rounded values, values and gradients, offsets kept in float32."""
    tensors, geometry = make(2, 36, 8, (12, 13), dtype=torch.float32)
    low = {n: t.to(dtype) if n in ("features", "weight", "bias") else t for n, t in tensors.items()}
    results = []
    for source in (low, {n: t.float() for n, t in low.items()}):
        leaves = [t.detach().requires_grad_() for t in source.values()]
        out = deform_conv2d(**dict(zip(source, leaves, strict=True)), **geometry)
        grads = torch.autograd.grad(out.float().square().sum(), leaves)
        assert [g.dtype for g in grads] == [t.dtype for t in leaves]
        results.append([out.float(), *(g.float() for g in grads)])
    for result, exact in zip(*results, strict=True):
        torch.testing.assert_close(result / exact.std(), exact / exact.std(), rtol=3e-2, atol=1e-1)


def test_autocast_casts_like_a_convolution_and_keeps_places() -> None:
    tensors, geometry = make(1, 16, 8, (9, 9), dtype=torch.float32)
    tensors["offset"] = tensors["offset"] + 1 / 512
    leaves = [t.requires_grad_() for t in tensors.values()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = deform_conv2d(**tensors, **geometry)
    cast = {n: t.bfloat16() if n in ("features", "weight", "bias") else t for n, t in tensors.items()}
    assert out.dtype == torch.bfloat16 and torch.equal(out, deform_conv2d(**cast, **geometry))
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(out.sum(), leaves))


@pytest.mark.parametrize("offset_dtype", [torch.float64, torch.bfloat16])
def test_offsets_of_another_dtype(offset_dtype: torch.dtype) -> None:
    tensors, geometry = make(dtype=torch.float32)
    other = tensors | {n: tensors[n].to(offset_dtype).requires_grad_() for n in ("offset", "mask")}
    same = tensors | {n: other[n].detach().float() for n in ("offset", "mask")}
    out = deform_conv2d(**other, **geometry)
    torch.testing.assert_close(out, deform_conv2d(**same, **geometry))
    out.sum().backward()
    assert other["offset"].grad.dtype == offset_dtype and other["mask"].grad.dtype == offset_dtype


def test_layouts_and_strides() -> None:
    tensors, geometry = make(2, 24, 10, (12, 9), groups=2, parts=3, dtype=torch.float32)
    expected = deform_conv2d(**tensors, **geometry)
    last = tensors | {"features": tensors["features"].contiguous(memory_format=torch.channels_last)}
    last["features"].requires_grad_()
    out = deform_conv2d(**last, **geometry)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    out.sum().backward()
    assert last["features"].grad.is_contiguous(memory_format=torch.channels_last)

    def strided(t: Tensor) -> Tensor:
        return torch.stack([t, t], dim=-1)[..., 0]

    torch.testing.assert_close(
        deform_conv2d(**{n: strided(t) for n, t in tensors.items()}, **geometry), expected
    )


def test_empty_batch() -> None:
    tensors, geometry = make(0, 4, 6)
    leaves = [t.requires_grad_() for t in tensors.values()]
    out = deform_conv2d(**tensors, **geometry)
    assert out.shape == (0, 6, 7, 9)
    out.sum().backward()
    assert all(t.grad is not None and not t.grad.any() for t in leaves)


def test_unusable_places() -> None:
    """Infinitely far is outside; NaN is passed on, and infinite pixels nearby are not."""
    tensors, geometry = make(1, 2, 1, dtype=torch.float32, modulated=False)
    x, offset = tensors["features"], tensors["offset"].zero_()
    x[0, :, 0, 0] = float("inf")
    offset[0, :, 5, 5] = 1e30
    offset[0, 7, 3, 3], offset[0, 8, 4, 4] = float("nan"), float("-inf")
    out = deform_conv2d(**tensors, **geometry)
    assert out[0, 0, 5, 5] == tensors["bias"][0]
    assert out[0, 0, 3, 3].isnan() and out[0, 0, 2:, 2:].isnan().sum() == 1


def test_more_than_memory_is_refused_not_overflown() -> None:
    """A map with more than 2^31 pixels that takes no memory."""
    x = torch.zeros(1, 1, 1, 1).expand(1, 1, 50_000, 50_000)
    with pytest.raises(ValueError, match="fewer than 2\\^31 pixels"):
        deform_conv2d(x, torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, 1), stride=50_000)
    x, offset = torch.zeros(1, 1, 1, 1), torch.zeros(1, 2, 1, 1)
    with pytest.raises(ValueError, match=r"result must have fewer than 2\^31 pixels"):
        deform_conv2d(x, offset, torch.zeros(1, 1, 1, 1), padding=100_000)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"features": torch.zeros(4, 7, 9)},
            ValueError,
            r"input must have shape \(B, C, H, W\), got \(4, 7, 9\)",
        ),
        ({"features": torch.zeros(2, 4, 0, 9)}, ValueError, "height and width of at least 1"),
        ({"features": torch.zeros(2, 4, 7, 9).int()}, TypeError, "input must be float32.* got Int"),
        (
            {"features": torch.zeros(2, 5, 7, 9)},
            ValueError,
            "channels of input, 5, must be a multiple of weight",
        ),
        ({"weight": torch.zeros(6, 4, 3, 3).half()}, TypeError, "weight must be Float, got Half"),
        ({"weight": torch.zeros(5, 2, 3, 3)}, ValueError, "output channels of weight, 5, .* groups, 2"),
        ({"weight": torch.zeros(6, 4, 0, 3)}, ValueError, "weight must not be empty"),
        (
            {"weight": torch.zeros(6, 4, 11, 3)},
            ValueError,
            "kernel spans 11 pixels, more than the height .* 9",
        ),
        ({"offset": torch.zeros(2, 18, 7, 8)}, ValueError, r"offset must have shape .* got \(2, 18, 7, 8\)"),
        ({"offset": torch.zeros(2, 20, 7, 9)}, ValueError, r"multiple of 2 \* kernel taps \(18\) .* got 20"),
        ({"offset": torch.zeros(2, 54, 7, 9)}, ValueError, "multiple of the deformable groups, 3"),
        ({"offset": torch.zeros(2, 18, 7, 9).long()}, TypeError, "offset must be float32.* got Long"),
        ({"mask": torch.zeros(2, 18, 7, 9)}, ValueError, r"mask must have shape .* got \(2, 18, 7, 9\)"),
        ({"bias": torch.zeros(5)}, ValueError, r"bias must have shape \(out channels,\), got \(5,\)"),
        ({"stride": 0}, ValueError, "stride must be from 1 to .* got 0"),
        ({"padding": -1}, ValueError, "padding must be from 0 to .* got -1"),
        ({"dilation": (1, 0)}, ValueError, "dilation must be from 1 to .* got 0"),
    ],
)
def test_bad_arguments(change: dict, error: type[Exception], message: str) -> None:
    tensors, geometry = make(dtype=torch.float32)
    with pytest.raises(error, match=message):
        deform_conv2d(**(tensors | geometry | change))


def test_bad_arguments_of_the_backward_pass() -> None:
    t, g = make(dtype=torch.float32, modulated=False)
    rest = (t["features"], t["offset"], None, t["weight"], *g.values())
    grad = torch.zeros(2, 6, 7, 9)
    with pytest.raises(ValueError, match="there is no mask to have a gradient"):
        OPS.deform_conv2d_backward(grad, *rest, [True] * 4)
    with pytest.raises(ValueError, match="grad must have shape"):
        OPS.deform_conv2d_backward(grad[:, :, 1:], *rest, [True, True, False, True])
    with pytest.raises(TypeError, match="grad must be Float, got Double"):
        OPS.deform_conv2d_backward(grad.double(), *rest, [True, True, False, True])


@pytest.mark.parametrize("kind", ["plain", "modulated", "channels-last", "empty", "bfloat16", "grouped"])
def test_opcheck(kind: str) -> None:
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    groups = {"groups": 2, "parts": 4} if kind == "grouped" else {}
    tensors, geometry = make(0 if kind == "empty" else 2, modulated=kind != "plain", dtype=dtype, **groups)
    if kind == "channels-last":
        tensors["features"] = tensors["features"].contiguous(memory_format=torch.channels_last)
    x, offset, weight, bias, mask = (t if t is None else t.requires_grad_() for t in tensors.values())
    opcheck(OPS.deform_conv2d.default, (x, offset, mask, weight, bias, *geometry.values()))
    needed = [True, kind != "grouped", mask is not None, kind != "empty"]
    grad = torch.randn(len(x), 6, 7, 9, dtype=dtype)
    plain = [None if t is None else t.detach() for t in (x, offset, mask, weight)]
    opcheck(OPS.deform_conv2d_backward.default, (grad, *plain, *geometry.values(), needed))


def test_compile_and_export() -> None:
    layer = DFConv2d(4, 6, deformable_groups=2, modulated=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for size in ((2, 4, 7, 9), (1, 4, 12, 8)):
        x = torch.randn(size, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        torch.testing.assert_close(compiled(x), layer(y))
        compiled(x).square().sum().backward()
        layer(y).square().sum().backward()
        torch.testing.assert_close(x.grad, y.grad)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(compiled(x), layer(x), rtol=2e-2, atol=2e-2)
    x = torch.randn(2, 4, 7, 9)
    program = torch.export.export(layer.eval(), (x,), dynamic_shapes={"x": {2: torch.export.Dim("h", min=4)}})
    x = torch.randn(2, 4, 15, 9)
    torch.testing.assert_close(program.module()(x), layer(x))


def test_meta_tensors_need_no_kernel() -> None:
    layer = DFConv2d(8, 6, stride=2, dilation=2, padding=2, groups=2, deformable_groups=4).to("meta")
    assert layer(torch.empty(3, 8, 15, 20, device="meta")).shape == (3, 6, 8, 10)


def test_deterministic_mode_is_no_obstacle_on_the_cpu() -> None:
    tensors, geometry = make()
    tensors["features"].requires_grad_()
    torch.use_deterministic_algorithms(True)
    try:
        deform_conv2d(**tensors, **geometry).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("modulated", "groups"), [(False, 1), (True, 1), (False, 3), (True, 2)])
def test_names_and_order_of_offsets(modulated: bool, groups: int) -> None:
    layer = DFConv2d(6, 8, deformable_groups=groups, modulated=modulated)
    state = {name: tuple(t.shape) for name, t in layer.state_dict().items()}
    channels = (27 if modulated else 18) * groups
    assert state == {
        "offset.weight": (channels, 6, 3, 3),
        "offset.bias": (channels,),
        "conv.weight": (8, 6, 3, 3),
    }
    assert not layer.offset.bias.any() and layer.conv.weight.abs().max() <= 54**-0.5
    x = torch.randn(1, 6, 5, 5)
    every = layer.offset(x)
    mask = every[:, 18 * groups :].sigmoid() if modulated else None
    expected = deform_conv2d(x, every[:, : 18 * groups], layer.conv.weight, padding=1, mask=mask)
    assert torch.equal(layer(x), expected)


def test_fixed_statistics_are_folded() -> None:
    norm = FrozenBatchNorm2d(8)
    for buffer in norm.buffers():
        buffer.uniform_(0.5, 1.5)
    for bias in (False, True):
        layer = DFConv2d(6, 8, modulated=True, bias=bias)
        if bias:
            nn.init.normal_(layer.conv.bias)
        x = torch.randn(2, 6, 9, 9)
        torch.testing.assert_close(conv_norm(layer, norm, x), norm(layer(x)), rtol=1e-4, atol=1e-5)
        batch_norm = nn.BatchNorm2d(8)
        assert torch.equal(conv_norm(layer, batch_norm, x), batch_norm(layer(x)))


def test_modules_refuse_groups_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="DFConv2d: 6 channels do not divide into 4 deformable groups"):
        DFConv2d(6, 8, deformable_groups=4)
    with pytest.raises(ValueError, match="DeformConv2d: 6 and 8 channels do not divide into 3 groups"):
        DeformConv2d(6, 8, 3, groups=3)
    assert "groups=2" in repr(DFConv2d(6, 8, groups=2)) and "modulated=False" in repr(DFConv2d(6, 8))
