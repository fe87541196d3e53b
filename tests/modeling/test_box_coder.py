"""Box regression targets and back."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn_benchmark.modeling.box_coder import BoxCoder, clip_boxes

coordinate = st.floats(0, 500, width=32)
side = st.floats(1, 400, width=32)
box = st.tuples(coordinate, coordinate, side, side).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])


@given(box, box)
def test_decode_undoes_encode(target: list[float], reference: list[float]) -> None:
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    targets, references = torch.tensor([target]), torch.tensor([reference])
    size = [(b[2] - b[0] + 1, b[3] - b[1] + 1) for b in (target, reference)]
    if max(t / r for t, r in zip(*size, strict=True)) < 60:
        decoded = coder.decode(coder.encode(targets, references), references)
        assert torch.allclose(decoded, targets, atol=0.02)


def test_inclusive_formula() -> None:
    deltas = BoxCoder((1.0, 1.0, 1.0, 1.0)).encode(
        torch.tensor([[10.0, 0, 29, 19]]), torch.tensor([[0.0, 0, 9, 9]])
    )
    expected = torch.tensor([[(20 - 5) / 10, (10 - 5) / 10, math.log(2), math.log(2)]])
    assert torch.allclose(deltas, expected)


def test_wild_scales_are_cut() -> None:
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    decoded = coder.decode(torch.tensor([[0.0, 0, 1e4, 1e4]]), torch.tensor([[0.0, 0, 15, 15]]))
    assert torch.allclose(decoded[0, 2] - decoded[0, 0] + 1, torch.tensor(1000.0))


def test_many_classes_and_empty() -> None:
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    references = torch.tensor([[0.0, 0, 9, 9], [5, 5, 20, 30]])
    deltas = torch.randn(2, 12)
    together = coder.decode(deltas, references)
    for k in range(3):
        assert torch.equal(
            together[:, 4 * k : 4 * k + 4], coder.decode(deltas[:, 4 * k : 4 * k + 4], references)
        )
    assert coder.decode(torch.zeros(0, 12), torch.zeros(0, 4)).shape == (0, 12)


def test_clip_and_bad_weights() -> None:
    clipped = clip_boxes(torch.tensor([[-3.0, -2, 50, 40], [100, 5, 200, 6]]), (40, 30))
    assert clipped.tolist() == [[0, 0, 39, 29], [39, 5, 39, 6]]
    with pytest.raises(ValueError, match="four positive"):
        BoxCoder((1.0, 1.0, 0.0, 1.0))
