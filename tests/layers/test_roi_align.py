"""roi_align forward and backward against a plain PyTorch reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskrcnn_benchmark.layers import ROIAlign, roi_align


def samples(low: float, high: float, scale: float, bins: int, ratio: int, size: int) -> Tensor:
    """(bins, size) matrix that averages the bilinear samples of each bin along one axis."""
    start = low * scale
    bin_side = max(high * scale - start, 1.0) / bins
    grid = ratio or math.ceil(bin_side)
    matrix = torch.zeros(bins, size, dtype=torch.float64)
    for b in range(bins):
        for i in range(grid):
            at = start + b * bin_side + (i + 0.5) * bin_side / grid
            if at < -1 or at > size:
                continue
            at = min(max(at, 0.0), size - 1.0)
            pixel = min(int(at), size - 1)
            matrix[b, pixel] += (1 - (at - pixel)) / grid
            if pixel + 1 < size:
                matrix[b, pixel + 1] += (at - pixel) / grid
    return matrix


def reference(features: Tensor, rois: Tensor, pooled: tuple[int, int], scale: float, ratio: int) -> Tensor:
    """Float64 rows * plane * columns for every RoI."""
    out = []
    for image, x1, y1, x2, y2 in rois.tolist():
        rows = samples(y1, y2, scale, pooled[0], ratio, features.shape[2])
        columns = samples(x1, x2, scale, pooled[1], ratio, features.shape[3])
        out.append(rows @ features[int(image)].double() @ columns.T)
    return torch.stack(out) if out else features.new_zeros((0, features.shape[1], *pooled)).double()


def random_rois(count: int, seed: int, images: int = 2, side: float = 120.0) -> Tensor:
    """RoIs inside, across and outside an image of 100 x 100, some inverted."""
    g = torch.Generator().manual_seed(seed)
    image = torch.randint(0, images, (count, 1), generator=g).float()
    corner = torch.rand(count, 2, generator=g) * 160 - 40
    return torch.cat([image, corner, corner + torch.rand(count, 2, generator=g) * side - 10], dim=1)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 20),
    st.integers(0, 1000),
    st.tuples(st.integers(1, 7), st.integers(1, 9)),
    st.sampled_from([1.0, 0.25, 1 / 16]),
    st.integers(0, 3),
)
def test_equal_to_reference(count: int, seed: int, pooled: tuple[int, int], scale: float, ratio: int) -> None:
    features = torch.randn(2, 3, 21, 17, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rois = random_rois(count, seed)
    out = roi_align(features, rois, pooled, scale, ratio)
    torch.testing.assert_close(out, reference(features, rois, pooled, scale, ratio), rtol=1e-9, atol=1e-9)


def test_float32_equals_torchvision() -> None:
    """torchvision's roi_align, forward and backward."""
    tv = pytest.importorskip("torchvision")
    features = torch.randn(2, 20, 30, 40, requires_grad=True)
    rois = random_rois(300, 1)
    for ratio in (0, 1, 2):
        ours = roi_align(features, rois, (7, 7), 0.25, ratio)
        theirs = tv.ops.roi_align(features, rois, (7, 7), 0.25, ratio or -1)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6)
        cotangent = torch.randn_like(ours)
        (a,), (b,) = (torch.autograd.grad(out, features, cotangent) for out in (ours, theirs))
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("ratio", [0, 2])
def test_gradients(ratio: int) -> None:
    features = torch.randn(2, 2, 7, 6, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 1, 2, 20, 25], [1, -9, -9, 12, 8], [1, 3, 3, 2, 2], [0, 500, 0, 600, 5]])
    rois = rois.double()

    def run(x: Tensor) -> Tensor:
        return roi_align(x, rois, (3, 2), 0.25, ratio)

    assert torch.autograd.gradcheck(run, (features,))
    assert torch.autograd.gradgradcheck(run, (features,))


def test_threads_do_not_change_a_bit() -> None:
    features = torch.randn(2, 19, 25, 25, requires_grad=True)
    rois = random_rois(600, 9)
    cotangent = torch.randn(600, 19, 5, 5)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        out = roi_align(features, rois, (5, 5), 0.25, 2)
        results.append((out, torch.autograd.grad(out, features, cotangent)[0]))
    torch.set_num_threads(threads)
    for out, grad in results[1:]:
        assert torch.equal(out, results[0][0])
        assert torch.equal(grad, results[0][1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_in_float32(dtype: torch.dtype) -> None:
    features = torch.randn(1, 4, 16, 16).to(dtype).requires_grad_()
    rois = random_rois(10, 2, images=1)
    out = roi_align(features, rois, (3, 3), 0.25, 2)
    assert out.dtype == dtype
    assert torch.equal(out, roi_align(features.float(), rois, (3, 3), 0.25, 2).to(dtype))
    out.sum().backward()
    assert features.grad is not None and features.grad.dtype == dtype


def test_autocast_keeps_coordinates_exact() -> None:
    features, rois = torch.randn(1, 2, 300, 300), torch.tensor([[0.0, 1001.25, 1003.5, 1100.75, 1190]])
    expected = roi_align(features, rois, (2, 2), 0.25, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(roi_align(features, rois, (2, 2), 0.25, 2), expected)


def test_nan_and_infinite_regions_give_nan_and_no_gradient() -> None:
    features = torch.randn(1, 2, 8, 8, requires_grad=True)
    bad = [float("nan"), float("inf"), -float("inf")]
    rois = torch.tensor([[0.0, 1, 1, 6, value] for value in bad] + [[0.0, 1, 1, 6, 6]])
    out = roi_align(features, rois, (2, 2), 1.0, 0)
    assert out[:3].isnan().all() and not out[3].isnan().any()
    out[3].sum().backward()
    assert features.grad is not None and features.grad.sum().item() == pytest.approx(8.0)


def test_huge_regions_cost_no_more_than_the_map() -> None:
    features = torch.ones(1, 1, 8, 8)
    out = roi_align(
        features, torch.tensor([[0.0, -1e30, -1e30, 1e30, 1e30], [0.0, -4e5, 0, 4e5, 7]]), (7, 7), 1.0, 0
    )
    assert out.isfinite().all()
    assert out[0].max() < 1e-6


def test_empty_inputs_and_strides() -> None:
    features = torch.randn(2, 3, 9, 9, requires_grad=True)
    out = roi_align(features, torch.zeros(0, 5), (2, 3), 1.0, 2)
    assert out.shape == (0, 3, 2, 3)
    out.sum().backward()
    assert torch.equal(features.grad, torch.zeros(2, 3, 9, 9))
    rois = random_rois(6, 7)
    layer = ROIAlign((3, 3), 0.1, 2)
    channels_last = features.detach().to(memory_format=torch.channels_last)
    assert torch.equal(layer(channels_last, rois), layer(features, rois))
    assert roi_align(torch.zeros(0, 3, 4, 4), torch.zeros(0, 5), (2, 2), 1.0, 2).shape == (0, 3, 2, 2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"features": torch.zeros(3, 8, 8)},
            ValueError,
            r"input must have shape \(B, C, H, W\), got \(3, 8, 8\)",
        ),
        (
            {"features": torch.zeros(1, 3, 0, 8)},
            ValueError,
            "input must have a height and width of at least 1",
        ),
        ({"features": torch.zeros(1, 3, 8, 8).int()}, TypeError, "input must be float32.* got Int"),
        ({"rois": torch.zeros(3, 4)}, ValueError, r"rois must have shape \(R, 5\).* got \(3, 4\)"),
        ({"rois": torch.zeros(3, 5).long()}, TypeError, "rois must be float32.* got Long"),
        (
            {"rois": torch.full((1, 5), 1.0)},
            ValueError,
            r"rois\[0, 0\] \(image index\) must be from 0 to 0, got 1",
        ),
        ({"rois": torch.full((1, 5), float("nan"))}, ValueError, "image index"),
        ({"rois": torch.full((1, 5), -1.0)}, ValueError, "image index"),
        ({"output_size": (0, 3)}, ValueError, "pooled_h must be from 1 to .* got 0"),
        ({"spatial_scale": 0.0}, ValueError, "spatial_scale must be finite and above 0, got 0"),
        ({"spatial_scale": float("nan")}, ValueError, "spatial_scale must be finite"),
        ({"sampling_ratio": -1}, ValueError, "sampling_ratio must be from 0 to 1024, got -1"),
    ],
)
def test_bad_arguments(change: dict, error: type[Exception], message: str) -> None:
    arguments = {
        "features": torch.zeros(1, 3, 8, 8),
        "rois": torch.zeros(1, 5),
        "output_size": (2, 2),
        "spatial_scale": 1.0,
        "sampling_ratio": 2,
    }
    with pytest.raises(error, match=message):
        roi_align(**(arguments | change))


def test_gradient_of_another_shape_is_refused() -> None:
    backward = torch.ops.maskrcnn_benchmark.roi_align_backward
    with pytest.raises(ValueError, match="rois must have one row per row of grad"):
        backward(torch.zeros(3, 2, 4, 4), torch.zeros(2, 5), 1.0, 1, 2, 8, 8, 2)
    with pytest.raises(ValueError, match="grad must have shape"):
        backward(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5), 1.0, 1, 2, 8, 8, 2)
