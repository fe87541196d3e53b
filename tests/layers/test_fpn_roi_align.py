"""fpn_roi_align against pooling level by level, bit for bit, and what torch knows about it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.library import opcheck

from maskrcnn_benchmark.layers import assign_levels, fpn_roi_align, roi_align
from maskrcnn_benchmark.utils.native import load_ops

load_ops()
OPS = torch.ops.maskrcnn_benchmark
SCALES = (0.25, 0.125, 0.0625, 0.03125)


def fpn_levels(channels: int = 3, dtype: torch.dtype = torch.float32, images: int = 2) -> list[Tensor]:
    """Four levels of images of 320 x 256."""
    g = torch.Generator().manual_seed(channels)
    shapes = [(images, channels, 256 // s, 320 // s) for s in (4, 8, 16, 32)]
    return [torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes]


def random_rois(count: int, seed: int = 0, images: int = 2) -> Tensor:
    """RoIs of all levels, some across the border, some inverted."""
    g = torch.Generator().manual_seed(seed)
    image = torch.randint(0, images, (count, 1), generator=g).float()
    corner = torch.rand(count, 2, generator=g) * 350 - 40
    side = torch.exp(torch.rand(count, 2, generator=g) * 5 + 1.5) - 8
    return torch.cat([image, corner, corner + side], dim=1)


def formula(boxes: Tensor, low: int, high: int) -> Tensor:
    """FPN levels (N,) of boxes (Lin et al. 2017, equation 1) in float32.

    numpy's root and logarithm, since torch's differ by a bit on some processors.
    """
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    side = torch.from_numpy(np.sqrt(area.numpy())) / 224 + 1e-6
    log = torch.from_numpy(np.log2(side.numpy().astype(np.float64)).astype(np.float32))
    return torch.floor(4 + log).clamp(low, high).to(torch.int64)


def per_level(features: list[Tensor], rois: Tensor, size: tuple[int, int], ratio: int) -> Tensor:
    """Each level pooled by itself."""
    levels = assign_levels(rois[:, 1:], 2, 5) - 2
    out = features[0].new_zeros((len(rois), features[0].shape[1], *size))
    for level, (feature, scale) in enumerate(zip(features, SCALES, strict=True)):
        rows = (levels == level).nonzero()[:, 0]
        out = out.index_put((rows,), roi_align(feature, rois[rows], size, scale, ratio))
    return out


def test_levels_follow_the_formula_to_the_last_bit() -> None:
    """Also where the area is within a few hundred float32 values of a boundary."""
    boxes = [torch.rand(20000, 2).mul(900).repeat(1, 2) + torch.tensor([0.0, 0, 1, 1]) * 50]
    for level in range(-2, 9):
        edge = torch.tensor(((2.0 ** (level - 4) - 1e-6) * 224) ** 2)
        area = (edge.view(torch.int32) + torch.arange(-400, 400, dtype=torch.int32)).view(torch.float32)
        boxes.append(torch.stack([torch.zeros(800), torch.zeros(800), area - 1, torch.zeros(800)], dim=1))
    for part in boxes:
        assert torch.equal(assign_levels(part, -3, 9), formula(part, -3, 9))


def test_levels_of_strange_boxes() -> None:
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor([[0, 0, -50, 90], [nan, 0, 9, 9], [0, 0, inf, 9], [0, 0, 1e38, 1e38], [5, 5, 4, 4]])
    assert assign_levels(boxes, 2, 5).tolist() == [2, 2, 5, 5, 2]
    assert assign_levels(boxes[:0], 2, 5).shape == (0,)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 60),
    st.integers(0, 99),
    st.tuples(st.integers(1, 7), st.integers(1, 14)),
    st.integers(0, 3),
    st.sampled_from([1, 3, 16, 37]),
    st.booleans(),
)
def test_bit_equal_to_each_level_alone(
    count: int, seed: int, size: tuple[int, int], ratio: int, channels: int, channels_last: bool
) -> None:
    planar, rois = fpn_levels(channels), random_rois(count, seed)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    ours = [f.contiguous(memory_format=layout).requires_grad_() for f in planar]
    theirs = [f.clone().requires_grad_() for f in planar]
    out, expected = fpn_roi_align(ours, rois, size, SCALES, ratio), per_level(theirs, rois, size, ratio)
    assert out.is_contiguous() and torch.equal(out, expected)
    cotangent = torch.randn_like(out)
    grads = torch.autograd.grad(out, ours, cotangent)
    references = torch.autograd.grad(expected, theirs, cotangent)
    for grad, reference, feature in zip(grads, references, ours, strict=True):
        assert torch.equal(grad, reference)
        assert grad.stride() == feature.stride()


def test_one_level_is_roi_align() -> None:
    feature, rois = fpn_levels()[0], random_rois(30)
    out = fpn_roi_align([feature], rois, (3, 4), SCALES[:1], 2)
    assert torch.equal(out, roi_align(feature, rois, (3, 4), SCALES[0], 2))


def test_equal_to_torchvision() -> None:
    """torchvision's MultiScaleRoIAlign, at boxes away from the level boundaries."""
    tv = pytest.importorskip("torchvision")
    features = fpn_levels(5)
    corner, side = torch.rand(80, 2) * 100, torch.tensor([30.0, 80, 150, 300, 500]).repeat(16)
    boxes = torch.cat([corner, corner + side[:, None]], dim=1)
    pooler = tv.ops.MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    theirs = pooler({str(i): f[:1] for i, f in enumerate(features)}, [boxes], [(256, 320)])
    rois = torch.cat([torch.zeros(80, 1), boxes], dim=1)
    ours = fpn_roi_align([f[:1] for f in features], rois, (7, 7), SCALES, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=3e-6)


def test_gradients() -> None:
    features = [torch.randn(2, 2, s, s + 1, dtype=torch.float64, requires_grad=True) for s in (6, 3)]
    rois = torch.tensor([[0.0, 1, 2, 9, 12], [1, -9, -9, 200, 180], [1, 3, 3, 2, 2], [0, 900, 0, 960, 5]])
    assert len(set(assign_levels(rois[:, 1:], 2, 3).tolist())) == 2

    def run(*levels: Tensor) -> Tensor:
        return fpn_roi_align(levels, rois.double(), (2, 3), SCALES[:2], 2)

    assert torch.autograd.gradcheck(run, features)
    assert torch.autograd.gradgradcheck(run, features)
    # A level that needs no gradient is skipped.
    (grad,) = torch.autograd.grad(run(features[0], features[1].detach()).sum(), features[:1])
    assert grad.shape == features[0].shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_precision_sums_in_float32(dtype: torch.dtype, layout: torch.memory_format) -> None:
    features = [f.contiguous(memory_format=layout).requires_grad_() for f in fpn_levels(18, dtype)]
    wide, rois = [f.detach().float().requires_grad_() for f in features], random_rois(40, 3)
    out = fpn_roi_align(features, rois, (3, 3), SCALES, 2)
    expected = fpn_roi_align(wide, rois, (3, 3), SCALES, 2)
    assert torch.equal(out, expected.to(dtype))
    out.sum().backward()
    expected.sum().backward()
    for narrow, feature in zip(features, wide, strict=True):
        assert narrow.grad is not None and feature.grad is not None
        assert torch.equal(narrow.grad, feature.grad.to(dtype))


def test_autocast_keeps_coordinates_exact() -> None:
    features, rois = fpn_levels(), random_rois(20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = fpn_roi_align(features, rois, (2, 2), SCALES, 2)
    assert torch.equal(out, fpn_roi_align(features, rois, (2, 2), SCALES, 2))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_threads_do_not_change_a_bit(layout: torch.memory_format) -> None:
    features = [f.contiguous(memory_format=layout).requires_grad_() for f in fpn_levels(40)]
    rois, cotangent = random_rois(700, 5), torch.randn(700, 40, 5, 5)
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        out = fpn_roi_align(features, rois, (5, 5), SCALES, 0)
        results.append((out.detach(), *torch.autograd.grad(out, features, cotangent)))
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_empty_and_unusable_regions() -> None:
    features = [f.requires_grad_() for f in fpn_levels()]
    out = fpn_roi_align(features, torch.zeros(0, 5), (2, 3), SCALES, 2)
    assert out.shape == (0, 3, 2, 3)
    assert all(not g.any() for g in torch.autograd.grad(out.sum(), features))
    rois = torch.tensor([[0.0, 1, 1, float("nan"), 9], [1, 0, 0, float("inf"), 9], [0, 4000, 0, 4400, 300]])
    out = fpn_roi_align(features, rois, (2, 2), SCALES, 0)
    assert out[:2].isnan().all() and not out[2].any()
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), features))
    nothing = fpn_roi_align([f[:, :0] for f in features], random_rois(3), (2, 2), SCALES, 2)
    assert nothing.shape == (3, 0, 2, 2)


def test_opcheck() -> None:
    features, rois = [f.requires_grad_() for f in fpn_levels(2)], random_rois(5)
    last = [f.detach().contiguous(memory_format=torch.channels_last).requires_grad_() for f in features]
    rule = (2, 4, 224.0)
    for levels in (features, last, [f.detach().bfloat16().requires_grad_() for f in features]):
        opcheck(OPS.fpn_roi_align.default, (levels, rois, SCALES, 2, 3, *rule))
    opcheck(OPS.fpn_roi_align.default, (features, rois[:0], SCALES, 2, 3, *rule))
    sizes = (2, [f.shape[2] for f in features], [f.shape[3] for f in features])
    grad = torch.randn(5, 2, 2, 3, requires_grad=True)
    for channels_last in (False, True):
        opcheck(OPS.fpn_roi_align_backward.default, (grad, rois, SCALES, *sizes, *rule, channels_last))
    opcheck(OPS.fpn_levels.default, (rois[:, 1:], 2, 4, 4, 224.0))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_compile_with_dynamic_sizes(layout: torch.memory_format) -> None:
    @torch.compile(fullgraph=True, backend="aot_eager", dynamic=True)
    def pooled(levels: list[Tensor], rois: Tensor) -> Tensor:
        return fpn_roi_align(levels, rois, (3, 2), SCALES, 2) * 2

    for count, images in ((6, 2), (3, 3)):
        ours = [f.contiguous(memory_format=layout).requires_grad_() for f in fpn_levels(3, images=images)]
        theirs, rois = [f.detach().clone().requires_grad_() for f in ours], random_rois(count)
        out, expected = pooled(ours, rois), fpn_roi_align(theirs, rois, (3, 2), SCALES, 2) * 2
        assert torch.equal(out, expected)
        out.square().sum().backward()
        expected.square().sum().backward()
        for a, b in zip(ours, theirs, strict=True):
            assert a.grad is not None and b.grad is not None and torch.equal(a.grad, b.grad)


def test_meta_tensors_need_no_kernel() -> None:
    levels = [f.to("meta") for f in fpn_levels()]
    assert fpn_roi_align(levels, random_rois(4).to("meta"), (2, 5), SCALES, 2).shape == (4, 3, 2, 5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": []}, ValueError, "the number of features must be from 1 to 16, got 0"),
        ({"scales": SCALES[:3]}, ValueError, r"scales must hold one value per level \(4\), got 3"),
        ({"scales": ()}, ValueError, r"scales must hold one value per level \(4\), got 0"),
        ({"scales": (0.25, 0.25, 0.25, 0.25)}, ValueError, r"scales must halve, scales\[1\] is 0.25 after"),
        ({"scales": (0.3, 0.15, 0.075, 0.0375)}, ValueError, r"scales\[0\] must be a power of two"),
        ({"scales": (float("nan"),) * 4}, ValueError, r"scales\[0\] must be a power of two .* got nan"),
        (
            {"features": [*fpn_levels()[:3], torch.zeros(3, 8, 8)]},
            ValueError,
            r"features\[3\] must have shape",
        ),
        (
            {"features": [*fpn_levels()[:3], torch.zeros(2, 4, 8, 8)]},
            ValueError,
            r"features\[3\] must have shape \(B, C, H, W\) with the B and C of features\[0\]",
        ),
        (
            {"features": [*fpn_levels()[:3], torch.zeros(2, 3, 0, 8)]},
            ValueError,
            r"features\[3\] must have a h",
        ),
        (
            {"features": [*fpn_levels()[:3], fpn_levels()[3].half()]},
            TypeError,
            r"features\[3\] must be Float",
        ),
        (
            {"features": [f.int() for f in fpn_levels()]},
            TypeError,
            r"features\[0\] must be float32.* got Int",
        ),
        ({"rois": torch.zeros(3, 4)}, ValueError, r"rois must have shape \(R, 5\).* got \(3, 4\)"),
        ({"rois": torch.zeros(3, 5).long()}, TypeError, "rois must be float32.* got Long"),
        ({"rois": torch.full((1, 5), 2.0)}, ValueError, r"rois\[0, 0\] \(image index\) must be from 0 to 1"),
        ({"output_size": (2, 0)}, ValueError, "pooled_w must be from 1 to .* got 0"),
        ({"sampling_ratio": 1025}, ValueError, "sampling_ratio must be from 0 to 1024, got 1025"),
    ],
)
def test_bad_arguments(change: dict, error: type[Exception], message: str) -> None:
    arguments = {
        "features": fpn_levels(),
        "rois": torch.zeros(1, 5),
        "output_size": (2, 2),
        "scales": SCALES,
        "sampling_ratio": 2,
    }
    with pytest.raises(error, match=message):
        fpn_roi_align(**(arguments | change))


def test_bad_arguments_of_the_backward_pass() -> None:
    backward, grad = OPS.fpn_roi_align_backward, torch.zeros(3, 2, 4, 4)
    with pytest.raises(ValueError, match="rois must have one row per row of grad"):
        backward(grad, torch.zeros(2, 5), [0.5], 1, [8], [8], 2, 4, 224.0, False)
    with pytest.raises(ValueError, match="widths must hold one value per height"):
        backward(grad, torch.zeros(3, 5), [0.5], 1, [8], [8, 4], 2, 4, 224.0, False)
    with pytest.raises(ValueError, match="canonical_size must be finite and above 0"):
        backward(grad, torch.zeros(3, 5), [0.5], 1, [8], [8], 2, 4, 0.0, False)
