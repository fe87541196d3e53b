"""roi_pool forward and backward against a plain PyTorch reference and torchvision."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskrcnn_benchmark.layers import ROIPool, roi_pool

INF, NAN = float("inf"), float("nan")


def bin_pixels(low: float, high: float, scale: float, bins: int, size: int) -> list[range]:
    """Pixels of every bin of one axis; ends are rounded half away from zero."""
    first, last = (math.floor(abs(v * scale) + 0.5) * (1 if v > 0 else -1) for v in (low, high))
    side = max(last - first + 1, 1) / bins
    ends = [(math.floor(b * side) + first, math.ceil((b + 1) * side) + first) for b in range(bins)]
    return [range(min(max(a, 0), size), min(max(b, 0), size)) for a, b in ends]


def reference(features: Tensor, rois: Tensor, pooled: tuple[int, int], scale: float) -> Tensor:
    """Slices and amax, one bin at a time."""
    out = features.new_zeros((len(rois), features.shape[1], *pooled))
    for r, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        for i, rows in enumerate(bin_pixels(y1, y2, scale, pooled[0], features.shape[2])):
            for j, columns in enumerate(bin_pixels(x1, x2, scale, pooled[1], features.shape[3])):
                if len(rows) and len(columns):
                    part = features[int(image), :, rows.start : rows.stop, columns.start : columns.stop]
                    out[r, :, i, j] = part.amax((1, 2))
    return out


def random_rois(count: int, seed: int, images: int = 2, side: float = 120.0) -> Tensor:
    """RoIs inside, across and outside an image of 100 x 100, some inverted."""
    g = torch.Generator().manual_seed(seed)
    image = torch.randint(0, images, (count, 1), generator=g).double()
    corner = torch.rand(count, 2, generator=g).double() * 160 - 40
    return torch.cat([image, corner, corner + torch.rand(count, 2, generator=g).double() * side - 10], dim=1)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 12),
    st.integers(0, 1000),
    st.tuples(st.integers(1, 7), st.integers(1, 9)),
    st.sampled_from([1.0, 0.25, 1 / 16]),
    st.sampled_from([1, 5, 17]),
)
def test_equal_to_reference(
    count: int, seed: int, pooled: tuple[int, int], scale: float, channels: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(2, channels, 21, 17, generator=g, dtype=torch.float64)
    rois = random_rois(count, seed)
    assert torch.equal(roi_pool(features, rois, pooled, scale), reference(features, rois, pooled, scale))


@pytest.mark.parametrize("quantised", [False, True])
def test_float32_equals_torchvision(quantised: bool) -> None:
    """Also among equal values: the gradient goes to the first pixel in row-major order."""
    tv = pytest.importorskip("torchvision")
    features = torch.randn(2, 20, 30, 40)
    features = ((features * 2).round() if quantised else features).requires_grad_()
    rois = random_rois(200, 1).float()
    ours, theirs = roi_pool(features, rois, (7, 5), 0.25), tv.ops.roi_pool(features, rois, (7, 5), 0.25)
    assert torch.equal(ours, theirs)
    cotangent = torch.randn_like(ours)
    (a,), (b,) = (torch.autograd.grad(out, features, cotangent) for out in (ours, theirs))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_gradients() -> None:
    g = torch.Generator().manual_seed(0)
    features = torch.randperm(2 * 2 * 42, generator=g).reshape(2, 2, 7, 6).double().requires_grad_()
    rois = torch.tensor([[0, 1, 2, 20, 25], [1, -9, -9, 12, 8], [1, 3, 3, 2, 2], [0, 500, 0, 600, 5]])

    def run(x: Tensor) -> Tensor:
        return roi_pool(x, rois.double(), (3, 2), 0.25)

    assert torch.autograd.gradcheck(run, (features,))
    assert torch.autograd.gradgradcheck(run, (features,))


def test_threads_and_layouts_do_not_change_a_bit() -> None:
    features = torch.randn(2, 37, 25, 25, requires_grad=True)
    rois, cotangent = random_rois(600, 9).float(), torch.randn(600, 37, 5, 5)
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        out = roi_pool(features, rois, (5, 5), 0.25)
        results.append((out, torch.autograd.grad(out, features, cotangent)[0]))
    torch.set_num_threads(threads)
    last = features.detach().to(memory_format=torch.channels_last)
    assert torch.equal(roi_pool(last, rois, (5, 5), 0.25), results[0][0])
    for out, grad in results[1:]:
        assert torch.equal(out, results[0][0]) and torch.equal(grad, results[0][1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    features = torch.randn(1, 4, 16, 16).to(dtype).requires_grad_()
    rois = random_rois(40, 2, images=1).float()
    out = roi_pool(features, rois, (3, 3), 0.25)
    wide = features.detach().float().requires_grad_()
    expected = roi_pool(wide, rois, (3, 3), 0.25)
    assert torch.equal(out, expected.to(dtype))
    out.sum().backward()
    expected.sum().backward()
    assert features.grad is not None and wide.grad is not None
    assert torch.equal(features.grad, wide.grad.to(dtype)), "sums are taken in float32"


def test_strange_regions() -> None:
    """NaN and infinite RoIs give NaN and no gradient; huge ones cost no more than the map."""
    features = torch.randn(1, 2, 8, 8, requires_grad=True)
    bad = [[0, 1, 1, 6, value] for value in (NAN, INF, -INF)]
    rois = torch.tensor([*bad, [0, -1e30, -1e30, 1e30, 1e30], [0, 1, 1, 6, 6], [0, 90, 90, 99, 99]])
    out = roi_pool(features, rois, (1, 1), 1.0)
    assert out[:3].isnan().all() and (out[5] == 0).all()
    assert torch.equal(out[3], features.detach().amax((2, 3), keepdim=True)[0])
    out.nan_to_num().sum().backward()
    assert features.grad is not None and features.grad.sum().item() == pytest.approx(4.0)


def test_strange_features() -> None:
    features = torch.full((1, 1, 4, 4), -INF)
    rois = torch.tensor([[0.0, 0, 0, 3, 3]])
    assert roi_pool(features, rois, (1, 1), 1.0).item() == -INF
    features[0, 0, 1, 2] = NAN
    assert roi_pool(features, rois, (2, 2), 1.0).isnan().flatten().tolist() == [False, True, False, False]


def test_empty_inputs() -> None:
    features = torch.randn(2, 3, 9, 9, requires_grad=True)
    out = roi_pool(features, torch.zeros(0, 5), (2, 3), 1.0)
    assert out.shape == (0, 3, 2, 3)
    out.sum().backward()
    assert torch.equal(features.grad, torch.zeros(2, 3, 9, 9))
    assert ROIPool((2, 2), 1.0)(torch.zeros(0, 3, 4, 4), torch.zeros(0, 5)).shape == (0, 3, 2, 2)
    assert roi_pool(torch.zeros(1, 0, 4, 4), torch.zeros(2, 5), (2, 2), 1.0).shape == (2, 0, 2, 2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": torch.zeros(3, 8, 8)}, ValueError, r"input must have shape \(B, C, H, W\)"),
        ({"features": torch.zeros(1, 3, 0, 8)}, ValueError, "height must be from 1 to .* got 0"),
        ({"features": torch.zeros(1, 0, 2**16, 2**16)}, ValueError, "less than 2.31 pixels"),
        ({"features": torch.zeros(1, 3, 8, 8).int()}, TypeError, "input must be float32.* got Int"),
        ({"rois": torch.zeros(3, 4)}, ValueError, r"rois must have shape \(R, 5\).* got \(3, 4\)"),
        ({"rois": torch.full((1, 5), 1.0)}, ValueError, r"rois\[0, 0\] \(image index\) must be from 0 to 0"),
        ({"output_size": (0, 3)}, ValueError, "pooled_h must be from 1 to .* got 0"),
        ({"spatial_scale": -1.0}, ValueError, "spatial_scale must be finite and above 0, got -1"),
    ],
)
def test_bad_arguments(change: dict, error: type[Exception], message: str) -> None:
    arguments = {"features": torch.zeros(1, 3, 8, 8), "rois": torch.zeros(1, 5)}
    arguments |= {"output_size": (2, 2), "spatial_scale": 1.0}
    with pytest.raises(error, match=message):
        roi_pool(**(arguments | change))


def test_bad_gradients() -> None:
    backward = torch.ops.maskrcnn_benchmark.roi_pool_backward
    grad, rois, argmax = torch.ones(3, 2, 4, 4), torch.zeros(3, 5), torch.zeros(3, 2, 4, 4).int()
    with pytest.raises(ValueError, match="rois must have one row per row of grad"):
        backward(grad, rois[:2], argmax, 1, 2, 8, 8)
    with pytest.raises(ValueError, match="argmax must have shape"):
        backward(grad, rois, argmax[:, :1], 1, 2, 8, 8)
    with pytest.raises(TypeError, match="argmax must be Int, got Long"):
        backward(grad, rois, argmax.long(), 1, 2, 8, 8)
    assert not backward(grad, rois, argmax + 64, 1, 2, 8, 8).any(), "indices off the map get no gradient"
