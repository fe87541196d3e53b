"""sigmoid_focal_loss against its formula in float64, up to double backward; smooth_l1_loss."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.layers import sigmoid_focal_loss, smooth_l1_loss

INF, NAN = float("inf"), float("nan")


def reference(logits: Tensor, targets: Tensor, gamma: float, alpha: float) -> Tensor:
    """The formula in plain PyTorch, float64."""
    x = logits.double()
    positive = targets[:, None] == torch.arange(1, x.shape[1] + 1)
    p = x.sigmoid()
    of_positive = -alpha * (1 - p) ** gamma * F.logsigmoid(x)
    of_negative = -(1 - alpha) * p**gamma * F.logsigmoid(-x)
    return torch.where(positive, of_positive, of_negative) * (targets >= 0)[:, None]


def case(rows: int, columns: int, seed: int, scale: float = 6.0) -> tuple[Tensor, Tensor]:
    """Logits up to about +-20 and targets of all kinds."""
    g = torch.Generator().manual_seed(seed)
    targets = torch.randint(-1, columns + 1, (rows,), generator=g)
    return torch.randn(rows, columns, generator=g) * scale, targets


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 70),
    st.integers(1, 40),
    st.integers(0, 1000),
    st.sampled_from([0.0, 0.5, 1.5, 2.0, 5.0]),
    st.sampled_from([0.0, 0.25, 1.0]),
)
def test_equal_to_formula(rows: int, columns: int, seed: int, gamma: float, alpha: float) -> None:
    logits, targets = case(rows, columns, seed)
    expected = reference(logits, targets, gamma, alpha)
    ours = sigmoid_focal_loss(logits, targets, gamma=gamma, alpha=alpha, reduction="none")
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), expected, rtol=2e-5, atol=1e-12)
    total = sigmoid_focal_loss(logits, targets.int(), gamma=gamma, alpha=alpha)
    torch.testing.assert_close(total.double(), expected.sum(), rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_float32_gradient(gamma: float) -> None:
    logits, targets = case(90, 33, 3)
    wide = logits.double().requires_grad_()
    (expected,) = torch.autograd.grad(reference(wide, targets, gamma, 0.25).sum(), wide)
    for reduction in ("sum", "none"):
        x = logits.clone().requires_grad_()
        (3 * sigmoid_focal_loss(x, targets, gamma=gamma, alpha=0.25, reduction=reduction).sum()).backward()
        assert x.grad is not None
        torch.testing.assert_close(x.grad.double(), 3 * expected, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradcheck(reduction: str, gamma: float) -> None:
    logits, targets = case(9, 4, 1, scale=2.0)
    logits = logits.double().requires_grad_()

    def run(x: Tensor) -> Tensor:
        return sigmoid_focal_loss(x, targets, gamma=gamma, alpha=0.3, reduction=reduction)

    assert torch.autograd.gradcheck(run, (logits,))
    assert torch.autograd.gradgradcheck(run, (logits,))


def test_extreme_logits_stay_finite() -> None:
    values = [-3e38, -1e4, -100.0, -88.0, -87.0, 0.0, 87.0, 88.0, 100.0, 1e4, 3e38]
    logits = torch.tensor(values)[:, None].expand(-1, 2).contiguous().requires_grad_()
    targets = torch.ones(len(values), dtype=torch.int64)
    out = sigmoid_focal_loss(logits, targets, gamma=2.0, alpha=0.25, reduction="none")
    assert out.isfinite().all()
    assert out[2, 0].item() == pytest.approx(0.25 * 87.33654, rel=1e-5), "log p ends at the smallest float"
    assert out[8, 1].item() == pytest.approx(0.75 * 100)
    out[:, 0].sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert logits.grad[2, 0].item() == pytest.approx(-0.25)


def test_nan_is_not_hidden() -> None:
    logits = torch.zeros(3, 4)
    logits[0, 1], logits[1, 2] = NAN, NAN
    targets = torch.tensor([2, 0, -1])
    x = logits.requires_grad_()
    out = sigmoid_focal_loss(x, targets, gamma=2.0, alpha=0.25, reduction="none")
    assert out.isnan().nonzero().tolist() == [[0, 1], [1, 2]]
    total = sigmoid_focal_loss(x, targets, gamma=2.0, alpha=0.25)
    total.backward()
    assert total.isnan() and x.grad is not None and x.grad.isnan().sum() == 2
    assert sigmoid_focal_loss(torch.full((1, 2), NAN), torch.tensor([-1]), gamma=2.0, alpha=0.2) == 0


def test_threads_do_not_change_a_bit() -> None:
    logits, targets = case(5000, 80, 7)
    threads, results = torch.get_num_threads(), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        x = logits.clone().requires_grad_()
        total = sigmoid_focal_loss(x, targets, gamma=2.0, alpha=0.25)
        total.backward()
        results.append((total, x.grad))
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for r in results[1:] for a, b in zip(r, results[0], strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    """Computed in float32; the sum of many small values does not stall."""
    logits, targets = case(900, 80, 8)
    half = logits.to(dtype).requires_grad_()
    wide = half.detach().float().requires_grad_()
    total = sigmoid_focal_loss(half, targets, gamma=2.0, alpha=0.25)
    expected = sigmoid_focal_loss(wide, targets, gamma=2.0, alpha=0.25)
    assert total.dtype == torch.float32 and torch.equal(total, expected)
    each = sigmoid_focal_loss(half, targets, gamma=2.0, alpha=0.25, reduction="none")
    wide_each = sigmoid_focal_loss(wide, targets, gamma=2.0, alpha=0.25, reduction="none")
    assert torch.equal(each, wide_each.to(dtype))
    total.backward()
    expected.backward()
    assert half.grad is not None and wide.grad is not None
    assert torch.equal(half.grad, wide.grad.to(dtype))


def test_empty_inputs() -> None:
    for shape in ((0, 5), (4, 0), (0, 0)):
        logits = torch.zeros(shape, requires_grad=True)
        targets = torch.zeros(shape[0], dtype=torch.int64)
        assert sigmoid_focal_loss(logits, targets, gamma=2.0, alpha=0.25, reduction="none").shape == shape
        total = sigmoid_focal_loss(logits, targets, gamma=2.0, alpha=0.25)
        total.backward()
        assert total == 0 and logits.grad is not None and logits.grad.shape == shape


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": torch.zeros(3, 4, 1)}, ValueError, r"logits must have shape \(N, C\), got \(3, 4, 1\)"),
        ({"logits": torch.zeros(3, 4).int()}, TypeError, "logits must be float32.* got Int"),
        ({"targets": torch.zeros(2).long()}, ValueError, r"targets must have shape \(N,\).* got \(2,\)"),
        ({"targets": torch.zeros(3)}, TypeError, "targets must be integers, got Float"),
        ({"targets": torch.tensor([0, 5, 0])}, ValueError, r"targets\[1\] must be from -1 to 4 .* got 5"),
        ({"targets": torch.tensor([0, 0, -2])}, ValueError, r"targets\[2\] must be from -1 to 4 .* got -2"),
        ({"gamma": -0.1}, ValueError, "gamma must be finite and at least 0, got -0.1"),
        ({"gamma": NAN}, ValueError, "gamma must be finite"),
        ({"alpha": 1.5}, ValueError, "alpha must be from 0 to 1, got 1.5"),
        ({"reduction": "mean"}, ValueError, "reduction must be 'sum' or 'none', got 'mean'"),
    ],
)
def test_bad_arguments(change: dict, error: type[Exception], message: str) -> None:
    arguments = {"logits": torch.zeros(3, 4), "targets": torch.zeros(3).long(), "gamma": 2.0, "alpha": 0.25}
    with pytest.raises(error, match=message):
        sigmoid_focal_loss(**(arguments | change))


def test_bad_gradients() -> None:
    backward = torch.ops.maskrcnn_benchmark.sigmoid_focal_loss_backward
    logits, targets = torch.zeros(3, 4), torch.zeros(3).long()
    with pytest.raises(ValueError, match=r"grad must have shape \(N, C\) like logits, got \(4, 3\)"):
        backward(torch.zeros(4, 3), logits, targets, 2.0, 0.25)
    with pytest.raises(TypeError, match="grad must be Float, got Double"):
        backward(torch.zeros(3, 4).double(), logits, targets, 2.0, 0.25)


def test_smooth_l1() -> None:
    prediction, target = torch.tensor([0.0, 0.5, 3.0]), torch.zeros(3)
    each = smooth_l1_loss(prediction, target, 1.0, reduction="none")
    torch.testing.assert_close(each, torch.tensor([0.0, 0.125, 2.5]))
    assert smooth_l1_loss(prediction, target, 1.0).item() == pytest.approx(2.625)
    assert smooth_l1_loss(prediction, target, 0.0, reduction="mean").item() == pytest.approx(3.5 / 3)
    assert smooth_l1_loss(prediction[:0], target[:0], 1.0).item() == 0.0


def test_smooth_l1_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"shape of the prediction, \(3,\), got \(1,\)"):
        smooth_l1_loss(torch.zeros(3), torch.zeros(1), 1.0)
    with pytest.raises(ValueError, match="beta must be at least 0"):
        smooth_l1_loss(torch.zeros(3), torch.zeros(3), -1.0)
