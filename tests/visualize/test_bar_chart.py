"""Bars: length, error bars and dots, empty rows, references."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from maskrcnn_benchmark.visualize.bar_chart import Bar, plot_bars

Check = Callable[[Figure], list[str]]


def rectangles(figure: Figure) -> list[Rectangle]:
    """Bars of the only panel, from the top."""
    return [
        patch
        for container in figure.axes[0].containers
        for patch in container
        if isinstance(patch, Rectangle)
    ]


def test_length_is_the_mean_and_the_first_stands_out(check_layout: Check) -> None:
    bars = [Bar("full", [1.0]), Bar("half", [0.4, 0.6]), Bar("bound", [0.25], pale=True)]
    figure = plot_bars("AP of all classes", "AP (0 to 1)", bars)
    drawn = rectangles(figure)
    assert [bar.get_width() for bar in drawn] == pytest.approx([1.0, 0.5, 0.25])
    assert len({to_hex(bar.get_facecolor()) for bar in drawn}) == 3
    texts = check_layout(figure)
    assert {"full", "half", "bound", "1.000", "0.500", "0.250", "AP (0 to 1)", "AP of all classes"} <= set(
        texts
    )
    plain = rectangles(plot_bars("", "", [Bar("a", [1.0]), Bar("b", [1.0])], compare=False))
    assert len({to_hex(bar.get_facecolor()) for bar in plain}) == 1


def test_error_bars_and_negative_values_are_inside(check_layout: Check) -> None:
    bars = [Bar("a", [0.2, -0.1]), Bar("no run yet", []), Bar("a variant with a rather long name", [0.3])]
    figure = plot_bars("title", "AP", bars)
    low, high = figure.axes[0].get_xlim()
    assert low < 0.05 - 0.2122 and high > 0.3
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots] == [[0.2, -0.1]]
    assert "no run yet" in check_layout(figure)


def test_number_of_bars(check_layout: Check) -> None:
    few, many = (plot_bars("title", "AP", [Bar(f"bar {i}", [0.5])] * count) for i, count in ((0, 2), (1, 30)))
    assert many.get_figheight() > few.get_figheight() + 9
    check_layout(many)
    check_layout(plot_bars("title", "AP", []))
