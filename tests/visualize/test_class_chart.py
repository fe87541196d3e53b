"""Charts over classes: places of marks, whole decades, group borders, names where there is room."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskrcnn_benchmark.visualize.class_chart import ClassChart, decades, draw_class_chart

GREY, RED = (128, 128, 128), (206, 72, 36)


def rows_of(image: Image.Image, color: tuple[int, int, int]) -> list[int]:
    """Pixel rows of the plot, text around it left out, that have this colour."""
    pixels = np.asarray(image)[100:-67, 98:-24]
    return np.flatnonzero((pixels == np.array(color)).all(axis=2).any(axis=1)).tolist()


@given(st.floats(1e-3, 1e6), st.floats(1.0, 1e6))
def test_decades_enclose(low: float, factor: float) -> None:
    ticks = decades(low, low * factor)
    assert ticks[0] <= low * (1 + 1e-6) and ticks[-1] >= low * factor * (1 - 1e-6)
    assert len(ticks) >= 2 and all(math.isclose(b, 10 * a) for a, b in zip(ticks, ticks[1:], strict=False))


def test_a_decade_is_as_high_as_the_next() -> None:
    tops = []
    for value in (1.0, 10.0, 100.0):
        chart = ClassChart("", "", {"a": [None, value], "b": [1.0, 1000.0]}, {"base": 2}, log=True)
        rows = rows_of(draw_class_chart(chart), GREY)
        tops.append(rows[0])
    assert tops[0] - tops[1] == pytest.approx(tops[1] - tops[2], abs=1) and tops[1] - tops[2] > 50


def test_what_has_no_logarithm_is_left_out() -> None:
    values = [0.0, -1.0, None, math.nan]
    chart = ClassChart("", "", {"a": values, "b": [5.0]}, {"base": 4}, log=True)
    image = draw_class_chart(chart)
    assert not rows_of(image, GREY) and rows_of(image, RED)


def test_a_mark_on_another_hides_none() -> None:
    image = draw_class_chart(ClassChart("", "", {"a": [0.5], "b": [0.5]}, {"base": 1}))
    assert len(rows_of(image, GREY)) > len(rows_of(image, RED)) > 3


@pytest.mark.parametrize("classes", [1, 24, 1230])
def test_any_number_of_classes(classes: int) -> None:
    names = [f"class {i}" for i in range(classes)]
    groups = {"base": classes} if classes == 1 else {"base": classes - 6, **{f"s{i}": 1 for i in range(6)}}
    chart = ClassChart("t", "y", {"a": [1.0] * classes}, groups, names, log=True, level=("mean", 3.0))
    assert draw_class_chart(chart, (700, 400)).size == (700, 400)


def test_names_take_room_from_the_plot_only_where_they_fit() -> None:
    def depth(classes: int) -> int:
        chart = ClassChart("", "", {"a": [0.0] * classes}, {"base": classes}, ["class"] * classes)
        return rows_of(draw_class_chart(chart), GREY)[-1]

    assert depth(20) < depth(200)


def test_no_classes() -> None:
    assert draw_class_chart(ClassChart("t", "y", {}, {}, log=True)).size == (980, 520)
