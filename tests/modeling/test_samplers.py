"""Sampling of labels and the class rule of LST."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.modeling.samplers import keep_query_class, subsample_labels

FIRST = [0, 3, 3, 5, -1, 0, 7, 5, 0, 3, -1, 2]
SECOND = [0, 0, 4, 4, 1, 9, 0, -1, 9]


@pytest.mark.parametrize(
    ("labels", "query_class", "positive", "negative"),
    [
        (FIRST, 3, [1, 2, 9], [0, 5, 8]),
        (SECOND, 9, [5, 8], [0, 1, 6]),
        (FIRST, 6, [1, 2, 3, 6, 7, 9, 11], [0, 5, 8]),
        (SECOND, 4, [2, 3], [0, 1, 6]),
        ([1] * 14 + [0] * 3, 8, list(range(10)), [14, 15, 16]),
        (FIRST, 0, [1, 2, 3, 6, 7, 9, 11], [0, 5, 8]),
    ],
)
def test_released_cases(
    labels: list[int], query_class: int, positive: list[int], negative: list[int]
) -> None:
    chosen = subsample_labels(keep_query_class(torch.tensor(labels), query_class), 64, 0.25)
    assert [c.tolist() for c in chosen] == [positive, negative]


def test_counts_and_order() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([1, 0, -1, 2] * 50)
    positive, negative = subsample_labels(labels, 40, 0.25)
    assert len(positive) == 10 and len(negative) == 30
    assert (labels[positive] > 0).all() and (labels[negative] == 0).all()
    assert torch.equal(positive, positive.sort().values) and len(negative.unique()) == 30
    few, rest = subsample_labels(torch.tensor([1, 0, 0]), 8, 0.5)
    assert few.tolist() == [0] and rest.tolist() == [1, 2]
    assert [len(c) for c in subsample_labels(torch.zeros(0, dtype=torch.int64), 8, 0.5)] == [0, 0]


def test_draws_differ_and_repeat_with_the_seed() -> None:
    labels = torch.zeros(1000, dtype=torch.int64)
    torch.manual_seed(3)
    first, second = subsample_labels(labels, 10, 0.5)[1], subsample_labels(labels, 10, 0.5)[1]
    torch.manual_seed(3)
    assert torch.equal(subsample_labels(labels, 10, 0.5)[1], first) and not torch.equal(first, second)
