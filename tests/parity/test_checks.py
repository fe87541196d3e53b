"""The comparisons themselves: they pass what is equal and fail what is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from checks.checker import FAIL, OK, Checker, match_boxes


def _status(method: str, *arguments: object, **options: object) -> str:
    checker = Checker()
    getattr(checker, method)("x", *arguments, **options)
    assert len(checker.checks) == 1
    return checker.checks[0].status


@pytest.mark.parametrize(
    ("method", "got", "expected", "status"),
    [
        ("values", [100.0, 0.009], [100.0, 0.0], OK),
        ("values", [100.0, 0.011], [100.0, 0.0], FAIL),
        ("values", torch.tensor([1.0]), [1.0], OK),
        ("values", [1.0], [[1.0]], FAIL),
        ("values", [math.nan], [1.0], FAIL),
        ("values", [], [], OK),
        ("close", [1e-5, 1.0001], [0.0, 1.0], OK),
        ("close", [1.2e-5], [0.0], FAIL),
        ("close", [1.0002], [1.0], FAIL),
        ("equal", [1, 2], [1, 2], OK),
        ("equal", [1, 3], [1, 2], FAIL),
        ("equal", [1], [1, 2], FAIL),
        ("equal", [True], np.array([True]), OK),
        ("same", {"a": [1]}, {"a": [1]}, OK),
        ("same", ["a", "b"], ["a", "c"], FAIL),
        ("same", ["a"], ["a", "c"], FAIL),
    ],
)
def test_verdicts(method: str, got: object, expected: object, status: str) -> None:
    assert _status(method, got, expected) == status


def test_relative() -> None:
    assert _status("relative", 1.00009, 1.0, 1e-4) == OK
    assert _status("relative", 1.00011, 1.0, 1e-4) == FAIL
    assert _status("relative", 0.0, 0.0, 1e-4) == OK
    assert _status("relative", 1e-3, 0.0, 1e-4) == FAIL


def test_scale_of_a_sample_is_that_of_the_whole_array() -> None:
    assert _status("values", [1.0], [1.0009], scale=10.0) == OK
    assert _status("values", [1.0], [1.0009]) == FAIL


def test_an_exception_becomes_a_failure() -> None:
    checker = Checker()
    with checker.section("outer"):
        checker.equal("a", 1, 1)
        with checker.section("inner"):
            raise ValueError("several\nlines")
        checker.equal("b", 1, 1)
    assert [(c.name, c.status) for c in checker.checks] == [
        ("outer.a", OK),
        ("outer.inner", FAIL),
        ("outer.b", OK),
    ]
    assert checker.checks[1].note == "ValueError: several lines"
    assert "\n" not in checker.checks[1].line()


def test_boxes_are_compared_as_sets() -> None:
    rng = np.random.default_rng(0)
    boxes, scores, labels = rng.uniform(0, 99, (200, 4)), rng.random(200), rng.integers(1, 5, 200)
    order = rng.permutation(200)
    same = [boxes[order] + 0.009, scores[order] + 9e-5, labels[order]]
    assert match_boxes(same, [boxes, scores, labels]) == 200
    assert _status("boxes", same, [boxes, scores, labels]) == OK
    assert match_boxes([boxes + 0.011, scores, labels], [boxes, scores, labels]) == 0
    assert match_boxes([boxes, scores + 2e-4, labels], [boxes, scores, labels]) == 0
    assert match_boxes([boxes, scores, labels + 1], [boxes, scores, labels]) == 0
    assert _status("boxes", [boxes[:198], scores[:198]], [boxes, scores]) == OK
    assert _status("boxes", [boxes[:197], scores[:197]], [boxes, scores]) == FAIL
    assert _status("boxes", [boxes[:0], scores[:0]], [boxes[:0], scores[:0]]) == OK
    assert _status("boxes", [boxes[:0], scores[:0]], [boxes, scores]) == FAIL


def test_one_box_is_not_used_twice() -> None:
    boxes, scores = np.zeros((2, 4)), np.zeros(2)
    assert match_boxes([boxes[:1], scores[:1]], [boxes, scores]) == 1
