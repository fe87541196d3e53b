"""Charts over classes: marks, whole decades, groups and their names, any number of classes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from maskrcnn_benchmark.visualize.class_chart import ClassChart, decades, plot_classes
from maskrcnn_benchmark.visualize.colors import PALETTE

Check = Callable[[Figure], list[str]]


def points(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """Marks of every series; the lines of one mark in the legend are empty."""
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) and line.get_marker() != "None"]
    return {
        str(line.get_label()): [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]
        for line in lines
    }


def strips(figure: Figure) -> list[tuple[float, float, str]]:
    """(left edge, width, colour) of the strip of every group."""
    patches = [p for p in figure.axes[0].patches if str(p.get_label()).endswith(("classes)", "class)"))]
    return [(p.get_x(), p.get_width(), to_hex(p.get_facecolor()).upper()) for p in patches]


@given(st.floats(1e-3, 1e6), st.floats(1.0, 1e6))
def test_decades_enclose(low: float, factor: float) -> None:
    first, last = decades(low, low * factor)
    assert first <= low * (1 + 1e-6) and last >= low * factor * (1 - 1e-6)
    assert last >= 9.99 * first and math.log10(first) == pytest.approx(round(math.log10(first)))


def test_marks_stand_at_their_labels() -> None:
    chart = ClassChart("", "", {"a": [0.5, None, 0.7], "b": [0.1]}, {"base": 2, "step 1": 1})
    assert points(plot_classes(chart)) == {"a": [(1.0, 0.5), (3.0, 0.7)], "b": [(1.0, 0.1)]}


def test_values_without_a_logarithm_are_left_out(check_layout: Check) -> None:
    values = [0.0, -1.0, None, math.nan]
    figure = plot_classes(ClassChart("", "", {"a": values, "b": [5.0]}, {"base": 4}, log=True))
    assert points(figure) == {"b": [(1.0, 5.0)]}
    low, high = figure.axes[0].get_ylim()
    assert figure.axes[0].get_yscale() == "log" and 0.5 < low < 1.0 and high >= 10.0
    check_layout(figure)


def test_a_mark_on_another_hides_none() -> None:
    figure = plot_classes(ClassChart("", "", {"a": [0.5], "b": [0.5]}, {"base": 1}))
    first, second = (line for line in figure.axes[0].lines if len(line.get_xdata()))
    assert first.get_markersize() > 1.3 * second.get_markersize()


def test_groups_have_the_colours_of_other_charts_and_names_with_sizes(check_layout: Check) -> None:
    groups = {"base": 12, "step 1": 6, "step 2": 6}
    names = [f"class_{i}" for i in range(24)]
    figure = plot_classes(ClassChart("Instances", "instances", {"a": [1.0] * 24}, groups, names))
    assert strips(figure) == [(0.5, 12.0, PALETTE[0]), (12.5, 6.0, PALETTE[1]), (18.5, 6.0, PALETTE[2])]
    texts = check_layout(figure)
    assert {"base (12 classes)", "step 1 (6 classes)", "step 2 (6 classes)", *names, "instances"} <= set(
        texts
    )
    assert figure.axes[0].get_xlabel() == "class (by training instances, descending)"


@pytest.mark.parametrize("classes", [1, 2, 24, 60, 61, 1231])
def test_any_number_of_classes(classes: int, check_layout: Check) -> None:
    names = [f"class_{i}_with_a_long_name_of_a_rare_thing" for i in range(classes)]
    steps = min(12, classes - 1)
    groups = {"base": classes - steps, **{f"step {i}": 1 for i in range(1, steps + 1)}}
    chart = ClassChart(
        "t",
        "instances",
        {"a": [7.0] * classes},
        groups,
        names,
        log=True,
        level=("mean of the new classes", 3.0),
    )
    texts = check_layout(plot_classes(chart))
    assert {
        "a",
        "mean of the new classes",
        f"base ({classes - steps} class{'es' * (classes - steps > 1)})",
    } <= set(texts)
    assert any(text.startswith("class_0") for text in texts) == (classes <= 60)


def test_no_classes(check_layout: Check) -> None:
    check_layout(plot_classes(ClassChart("t", "y", {}, {}, log=True)))
