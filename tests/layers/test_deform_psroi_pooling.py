"""deform_psroi_pooling against a sample-by-sample reference; the modules around it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.library import opcheck

from maskrcnn_benchmark.layers import DeformPSRoIPooling, DeformPSRoIPoolingPack, deform_psroi_pooling
from maskrcnn_benchmark.utils.native import load_ops

load_ops()
OPS = torch.ops.maskrcnn_benchmark
HALF = [torch.float16, torch.bfloat16]


def half_away(value: float) -> float:
    return math.copysign(math.floor(abs(value) + 0.5), value)


def bilinear(plane: Tensor, y: float, x: float) -> float:
    top, left = math.floor(y), math.floor(x)
    bottom, right = math.ceil(y), math.ceil(x)
    dy, dx = y - top, x - left
    upper = (1 - dx) * plane[top, left] + dx * plane[top, right]
    lower = (1 - dx) * plane[bottom, left] + dx * plane[bottom, right]
    return float((1 - dy) * upper + dy * lower)


def reference(
    x: Tensor,
    rois: Tensor,
    trans: Tensor | None,
    scale: float,
    dim: int,
    groups: int,
    pooled: int,
    parts: int,
    samples: int,
    std: float,
) -> Tensor:
    """The definition (Dai et al. 2017, section 2.2), one sample at a time."""
    height, width = x.shape[2:]
    out = torch.zeros(len(rois), dim, pooled, pooled, dtype=torch.float64)
    per_class = dim if trans is None else dim // (trans.shape[1] // 2)
    for r, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (half_away(c) for c in corners)
        left, top = x1 * scale - 0.5, y1 * scale - 0.5
        w = max((x2 + 1) * scale - 0.5 - left, 0.1)
        h = max((y2 + 1) * scale - 0.5 - top, 0.1)
        for c in range(dim):
            for i in range(pooled):
                for j in range(pooled):
                    sx = sy = 0.0
                    if trans is not None:
                        part = (i * parts // pooled, j * parts // pooled)
                        sx, sy = (float(trans[r, 2 * (c // per_class) + a][part]) * std for a in (0, 1))
                    plane = x[int(image), (c * groups + i * groups // pooled) * groups + j * groups // pooled]
                    values = []
                    for a in range(samples):
                        for b in range(samples):
                            y = top + i * h / pooled + sy * h + a * h / pooled / samples
                            z = left + j * w / pooled + sx * w + b * w / pooled / samples
                            if -0.5 <= y <= height - 0.5 and -0.5 <= z <= width - 0.5:
                                inside = (min(max(y, 0.0), height - 1.0), min(max(z, 0.0), width - 1.0))
                                values.append(bilinear(plane, *inside))
                    out[r, c, i, j] = sum(values) / len(values) if values else 0.0
    return out


def make(
    seed: int = 0,
    *,
    count: int = 5,
    dim: int = 4,
    groups: int = 1,
    pooled: int = 3,
    parts: int = 3,
    classes: int = 2,
) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
    """Features, RoIs (inside, across, outside, inverted), shifts and the other arguments."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(2, dim * groups * groups, 9, 11, generator=g, dtype=torch.float64)
    corner = torch.rand(count, 2, generator=g, dtype=torch.float64) * 60 - 15
    sides = torch.rand(count, 2, generator=g, dtype=torch.float64) * 40 - 4
    image = torch.randint(0, 2, (count, 1), generator=g).double()
    rois = torch.cat([image, corner, corner + sides], dim=1)
    trans = torch.randn(count, 2 * classes, parts, parts, generator=g, dtype=torch.float64)
    setting = {"spatial_scale": 0.25, "output_dim": dim, "group_size": groups, "pooled_size": pooled}
    return x, rois, trans, setting | {"part_size": parts, "sample_per_part": 3, "trans_std": 0.2}


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 99),
    st.sampled_from([(1, 1), (4, 2), (3, 3), (18, 1)]),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
)
def test_equal_to_reference(seed, channels, groups, pooled, parts, moved) -> None:
    dim, classes = channels
    x, rois, trans, setting = make(
        seed, count=3, dim=dim, groups=groups, pooled=pooled, parts=parts, classes=classes
    )
    shifts = trans if moved else None
    out = deform_psroi_pooling(x, rois, shifts, **setting)
    expected = reference(x, rois, shifts, 0.25, dim, groups, pooled, parts, 3, 0.2)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients(groups: int) -> None:
    x, rois, trans, setting = make(3, groups=groups, pooled=2, parts=2)
    leaves = (x.requires_grad_(), trans.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: deform_psroi_pooling(a, rois, b, **setting), leaves)
    fixed = x.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: deform_psroi_pooling(a, rois, None, **setting), (fixed,))


def test_gradients_asked_for_alone_and_threads() -> None:
    x, rois, trans, setting = make(4, count=40, dim=36, classes=3)
    x, rois, trans = x.float().requires_grad_(), rois.float(), trans.float().requires_grad_()
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        out = deform_psroi_pooling(x, rois, trans, **setting)
        results.append((out, *torch.autograd.grad(out.sin().sum(), (x, trans))))
    torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))
    only_x = deform_psroi_pooling(x, rois, trans.detach(), **setting).sin().sum()
    only_trans = deform_psroi_pooling(x.detach(), rois, trans, **setting).sin().sum()
    assert torch.equal(torch.autograd.grad(only_x, x)[0], results[0][1])
    assert torch.equal(torch.autograd.grad(only_trans, trans)[0], results[0][2])


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_sums_in_float32(dtype: torch.dtype) -> None:
    x, rois, trans, setting = make(5)
    x, rois, trans = x.to(dtype).requires_grad_(), rois.float(), trans.float().requires_grad_()
    out = deform_psroi_pooling(x, rois, trans, **setting)
    assert torch.equal(out, deform_psroi_pooling(x.float(), rois, trans, **setting).to(dtype))
    out.float().sum().backward()
    assert x.grad is not None and x.grad.dtype == dtype and trans.grad.dtype == torch.float32


def test_autocast_changes_nothing() -> None:
    x, rois, trans, setting = make(6)
    arguments = (x.float(), rois.float() + 0.25, trans.float())
    expected = deform_psroi_pooling(*arguments, **setting)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(deform_psroi_pooling(*arguments, **setting), expected)


def test_layouts_strides_and_empty_inputs() -> None:
    x, rois, trans, setting = make(7, groups=2)
    expected = deform_psroi_pooling(x, rois, trans, **setting)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(deform_psroi_pooling(last, rois, trans, **setting), expected)
    strided = [torch.stack([t, t], dim=-1)[..., 0] for t in (x, rois, trans)]
    assert torch.equal(deform_psroi_pooling(*strided, **setting), expected)
    leaves = (x.requires_grad_(), trans[:0].clone().requires_grad_())
    out = deform_psroi_pooling(leaves[0], rois[:0], leaves[1], **setting)
    assert out.shape == (0, 4, 3, 3)
    out.sum().backward()
    assert not leaves[0].grad.any() and leaves[1].grad.shape == (0, 4, 3, 3)
    assert deform_psroi_pooling(x[:0], rois[:0], **setting).shape == (0, 4, 3, 3)


def test_unusable_regions_give_nan_and_no_gradient() -> None:
    x, _, _, setting = make(8)
    bad = [float("nan"), float("inf"), -float("inf")]
    rois = torch.tensor([[0.0, 1, 1, 6, value] for value in bad] + [[0.0, 1, 1, 16, 16]] * 2).double()
    trans = torch.zeros(5, 2, 3, 3, dtype=torch.float64)
    trans[4, 1, 2, 2] = float("nan")
    x.requires_grad_()
    out = deform_psroi_pooling(x, rois, trans, **setting)
    assert out[:3].isnan().all() and out[3].isfinite().all()
    assert out[4].isnan().sum() == 4 and out[4, :, 2, 2].isnan().all()
    out.nansum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad.any()


def test_far_regions_are_zero() -> None:
    x, _, _, setting = make(9)
    rois = torch.tensor([[0.0, 1e4, 1e4, 1.1e4, 1.1e4], [0, -1e30, 0, -1e29, 9]]).double()
    assert not deform_psroi_pooling(x, rois, **setting).any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": torch.zeros(2, 5, 9, 11)}, ValueError, r"input must have shape \(B, output_dim"),
        ({"features": torch.zeros(2, 4, 9, 0)}, ValueError, "height and width of at least 1"),
        ({"features": torch.zeros(2, 4, 9, 11).long()}, TypeError, "input must be float32.* got Long"),
        ({"rois": torch.zeros(5, 4)}, ValueError, r"rois must have shape \(R, 5\).* got \(5, 4\)"),
        ({"rois": torch.full((5, 5), 2.0)}, ValueError, r"rois\[0, 0\] .* from 0 to 1, got 2"),
        ({"rois": torch.full((5, 5), float("nan"))}, ValueError, "image index"),
        ({"trans": torch.zeros(5, 3, 3, 3)}, ValueError, "two channels for each of as many classes"),
        ({"trans": torch.zeros(5, 6, 3, 3)}, ValueError, r"divide output_dim \(4\), got \(5, 6, 3, 3\)"),
        ({"trans": torch.zeros(4, 4, 3, 3)}, ValueError, r"trans must have shape .* got \(4, 4, 3, 3\)"),
        ({"trans": torch.zeros(5, 4, 2, 2)}, ValueError, r"trans must have shape .* got \(5, 4, 2, 2\)"),
        ({"spatial_scale": 0.0}, ValueError, "spatial_scale must be finite and above 0"),
        ({"trans_std": float("inf")}, ValueError, "trans_std must be finite"),
        ({"pooled_size": 0}, ValueError, "pooled_size must be from 1 to 1024, got 0"),
        ({"sample_per_part": 2000}, ValueError, "sample_per_part must be from 1 to 1024, got 2000"),
        ({"group_size": 0}, ValueError, "group_size must be from 1 to 1024"),
        ({"output_dim": -1}, ValueError, "output_dim must be from 1"),
    ],
)
def test_bad_arguments(change: dict, error: type[Exception], message: str) -> None:
    x, rois, trans, setting = make()
    arguments = {"features": x.float(), "rois": rois.float(), "trans": trans.float()} | setting
    with pytest.raises(error, match=message):
        deform_psroi_pooling(**(arguments | change))


def test_bad_arguments_of_the_backward_pass() -> None:
    x, rois, _, _ = make()
    backward = OPS.deform_psroi_pooling_backward
    with pytest.raises(ValueError, match="there is no trans to have a gradient"):
        backward(torch.zeros(5, 4, 3, 3).double(), x, rois, None, 0.25, 4, 1, 3, 3, 2, 0.1, [True, True])
    with pytest.raises(ValueError, match="grad must have shape"):
        backward(torch.zeros(5, 4, 3, 2).double(), x, rois, None, 0.25, 4, 1, 3, 3, 2, 0.1, [True, False])


@pytest.mark.parametrize("kind", ["plain", "moved", "empty", "bfloat16"])
def test_opcheck(kind: str) -> None:
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    x, rois, trans, _ = make(groups=2, count=0 if kind == "empty" else 5)
    x, rois, trans = x.to(dtype).requires_grad_(), rois.float(), trans.float().requires_grad_()
    rest = (rois, None if kind == "plain" else trans, 0.25, 4, 2, 3, 3, 2, 0.1)
    opcheck(OPS.deform_psroi_pooling.default, (x, *rest))
    grad = torch.randn(len(rois), 4, 3, 3, dtype=dtype)
    plain = [t.detach() if isinstance(t, Tensor) else t for t in (x, *rest)]
    opcheck(OPS.deform_psroi_pooling_backward.default, (grad, *plain, [kind != "empty", kind != "plain"]))


def test_compile_export_and_meta() -> None:
    layer = DeformPSRoIPooling(0.25, 3, 4, trans_std=0.1)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for count in (5, 3):
        x, rois, trans, _ = make(count=count)
        a, b = (x.float().requires_grad_() for _ in range(2))
        out, expected = (f(v, rois.float(), trans.float()) for f, v in ((compiled, a), (layer, b)))
        torch.testing.assert_close(out, expected)
        out.sum().backward()
        expected.sum().backward()
        torch.testing.assert_close(a.grad, b.grad)
    program = torch.export.export(layer, (x.float(), rois.float()))
    torch.testing.assert_close(program.module()(x.float(), rois.float()), layer(x.float(), rois.float()))
    assert layer(x.to("meta"), rois.to("meta")).shape == (3, 4, 3, 3)


@pytest.mark.parametrize("modulated", [False, True])
def test_pack_starts_still_and_learns(modulated: bool) -> None:
    x, rois, _, _ = make(10)
    layer = DeformPSRoIPoolingPack(0.25, 3, 4, fc_channels=8, modulated=modulated).double()
    names = ["offset_fc.0", "offset_fc.2", "offset_fc.4", *(["mask_fc.0", "mask_fc.2"] if modulated else [])]
    assert list(layer.state_dict()) == [f"{name}.{part}" for name in names for part in ("weight", "bias")]
    plain = deform_psroi_pooling(x, rois, spatial_scale=0.25, output_dim=4, pooled_size=3)
    out = layer(x, rois)
    torch.testing.assert_close(out, plain * (0.5 if modulated else 1))
    out.square().sum().backward()
    assert layer.offset_fc[4].weight.grad.any()
    assert layer(x, rois[:0]).shape == (0, 4, 3, 3)
    with pytest.raises(ValueError, match="computes its shifts itself"):
        layer(x, rois, torch.zeros(5, 2, 3, 3))
    assert "output_dim=4" in repr(layer)
