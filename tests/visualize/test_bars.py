"""Bars with spread: sizes, lengths, colours of references."""

from __future__ import annotations

import numpy as np
import pytest

from maskrcnn_benchmark.visualize.bars import Bar, draw_bars


def colored(bars: list[Bar], color: tuple[int, int, int]) -> int:
    """Pixels of a colour in the image of these bars."""
    pixels = np.asarray(draw_bars("title", "AP", bars))
    return int((pixels == np.array(color)).all(axis=2).sum())


def test_length_follows_the_mean() -> None:
    first, other, pale = (38, 110, 180), (150, 186, 220), (208, 208, 208)
    bars = [Bar("full", [1.0]), Bar("half", [0.5]), Bar("bound", [0.25], pale=True)]
    assert colored(bars, other) == pytest.approx(colored(bars, first) / 2, rel=0.05)
    assert colored(bars, pale) == pytest.approx(colored(bars, first) / 4, rel=0.1)


def test_rows_spread_and_empty_bars() -> None:
    few = draw_bars("title", "AP", [Bar("a", [0.2, 0.4, 0.3])])
    many = draw_bars("title", "AP", [Bar("a", [0.2, -0.1]), Bar("no run yet", []), Bar("c", [0.3])])
    assert few.width == many.width == 820 and many.height - few.height == 80
    assert draw_bars("title", "AP", []).height > 0
