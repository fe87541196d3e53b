"""Line charts: ticks enclose the data, lines and gaps land where the numbers say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskrcnn_benchmark.visualize.colors import label_color, text_color
from maskrcnn_benchmark.visualize.curves import LineChart, draw_chart, draw_charts, nice_ticks


def count_pixels(image: Image.Image, color: tuple[int, int, int]) -> int:
    """Pixels of exactly this colour."""
    return int((np.asarray(image) == np.array(color)).all(axis=2).sum())


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_even_and_enclose(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    steps = np.diff(ticks)
    slack = 1e-6 * span + 4 * np.spacing(abs(low) + span)  # numbers of this size are no finer
    assert ticks[0] <= low + slack and ticks[-1] >= low + span - slack
    assert 2 <= len(ticks) <= 9
    assert np.allclose(steps, steps[0], rtol=1e-3)


def test_ticks_of_degenerate_ranges() -> None:
    assert nice_ticks(0.0, 0.0)[0] == 0.0
    assert nice_ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert nice_ticks(math.nan, 1.0)[-1] == 1.0


def test_lines_appear_in_their_colours() -> None:
    chart = LineChart("t", "x", "y", ["0", "1", "2"], {"a": [0.1, 0.2, 0.3], "b": [0.3, 0.2, 0.1]})
    image = draw_chart(chart, (500, 300))
    assert image.size == (500, 300)
    assert all(count_pixels(image, label_color(i)) > 300 for i in range(2))


def test_undefined_values_break_the_line() -> None:
    full = draw_chart(LineChart("", "", "", list("abc"), {"s": [0.2, 0.2, 0.2]}))
    broken = draw_chart(LineChart("", "", "", list("abc"), {"s": [0.2, None, 0.2]}))
    assert count_pixels(broken, label_color(0)) < count_pixels(full, label_color(0)) / 2


@pytest.mark.parametrize("values", [[], [None], [math.nan], [0.0], [-1.0]])
def test_little_data(values: list[float | None]) -> None:
    chart = LineChart("t", "x", "y", [str(i) for i in range(len(values))], {"s": values})
    assert draw_chart(chart).size == (820, 520)


def test_many_series_and_charts() -> None:
    series = {f"t{i}": [0.1 * i] * 40 for i in range(30)}
    chart = LineChart("t", "x", "y", [f"phase {i}" for i in range(40)], series)
    assert draw_charts([chart, chart], (600, 400)).size == (1200, 400)
    assert draw_charts([]).size == (820, 520)


def test_colours_differ_and_text_contrasts() -> None:
    assert len({label_color(i) for i in range(200)}) == 200
    assert text_color((255, 255, 0)) == (0, 0, 0)
    assert text_color((0, 0, 120)) == (255, 255, 255)
