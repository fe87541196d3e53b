"""Line charts: names on the axes, one style per series, gaps, nothing outside of the figure."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from matplotlib.figure import Figure

from maskrcnn_benchmark.visualize.colors import PALETTE
from maskrcnn_benchmark.visualize.figure import MEAN, TOTAL, line_style
from maskrcnn_benchmark.visualize.line_chart import LineChart, plot_lines

Check = Callable[[Figure], list[str]]


def chart(series: dict[str, list[float | None]], title: str = "AP", **more: dict[str, int]) -> LineChart:
    """Values after phases 0, 1, ..."""
    count = max((len(values) for values in series.values()), default=0)
    return LineChart(
        title, "after phase", "AP (0 to 1)", [f"phase {i}" for i in range(count)], series, **more
    )


def colors(figure: Figure) -> list[dict[str, str]]:
    """Colour of every series, by panel."""
    return [
        {str(line.get_label()): str(line.get_color()) for line in axes.get_legend_handles_labels()[0]}
        for axes in figure.axes
    ]


def test_axes_have_names_and_the_legend_lists_the_series(check_layout: Check) -> None:
    figure = plot_lines([chart({"base (12 classes)": [0.1, 0.2], "step 1 (6 classes)": [None, 0.3]})])
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")) == (
        "after phase",
        "AP (0 to 1)",
        "AP",
    )
    texts = check_layout(figure)
    assert {"base (12 classes)", "step 1 (6 classes)", "phase 0", "phase 1"} <= set(texts)


def test_a_series_has_one_colour_in_all_panels_and_one_entry_in_the_legend() -> None:
    panels = [chart({"a": [0.1], "b": [0.2]}), chart({"b": [0.3]}, "lost"), chart({}, "nothing")]
    figure = plot_lines(panels, columns=2)
    first, second, third = colors(figure)
    assert second["b"] == first["b"] != first["a"] and not third
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert all(axes.get_legend() is None for axes in figure.axes)
    assert "no values" in [text.get_text() for text in figure.axes[2].texts]


def test_panels_without_a_common_series_have_their_own_legends(check_layout: Check) -> None:
    figure = plot_lines([chart({"loss": [0.1, 0.2]}), chart({"AP": [0.3, 0.4]})])
    assert not figure.legends and all(axes.get_legend() is not None for axes in figure.axes)
    assert len({next(iter(panel.values())) for panel in colors(figure)}) == 2
    check_layout(figure)


def test_given_styles_hold_where_groups_are_missing() -> None:
    styles = {"a": 0, "b": 1, "all": TOTAL, "mean": MEAN}
    (alone,) = colors(plot_lines([chart({"b": [0.1], "new": [0.2], "all": [0.3]}, styles=styles)]))
    assert alone == {"b": PALETTE[1], "new": PALETTE[2], "all": "#000000"}


def test_styles_differ() -> None:
    styles = [line_style(index) for index in [*range(126), TOTAL, MEAN]]
    assert len({str(style) for style in styles}) == 128


def test_undefined_values_interrupt_the_line_and_lonely_ones_are_marked() -> None:
    values: list[float | None] = [0.1] * 60
    values[30], values[33], values[31] = None, math.nan, 0.5
    values[32] = None
    (line,) = plot_lines([chart({"a": values})]).axes[0].lines[:1]
    assert [i for i, v in enumerate(line.get_ydata()) if math.isnan(v)] == [30, 32, 33]
    assert 31 in line.get_markevery() and len(line.get_markevery()) < 35


@pytest.mark.parametrize(
    ("values", "negative"), [([0.2, 0.7], False), ([0.2, -0.1], True), ([0.0, 0.0], False)]
)
def test_the_axis_starts_at_0_unless_a_value_is_negative(values: list[float], negative: bool) -> None:
    low, high = plot_lines([chart({"a": [*values]})]).axes[0].get_ylim()
    assert (low < min(values)) if negative else low == 0.0
    assert high > max(values)


@pytest.mark.parametrize("phases", [1, 3, 13, 40])
def test_any_number_of_phases(phases: int, check_layout: Check) -> None:
    series: dict[str, list[float | None]] = {
        f"step {i} (6 classes)": [None] * i + [0.5] * (phases - i) for i in range(phases)
    }
    figure = plot_lines([chart(series), chart(series)], columns=2)
    texts = check_layout(figure)
    assert "phase 0" in texts and f"step {phases - 1} (6 classes)" in texts


def test_long_names_and_numbers(check_layout: Check) -> None:
    name = "a variant without replay and distillation and with class-specific masks"
    title = "bbox AP of all classes that were seen up to this phase, on all validation images"
    figure = plot_lines(
        [LineChart(title, "iteration", "loss (mean)", [9e4 * i for i in range(9)], {name: [1.0] * 9})]
    )
    assert any("\n" in text for text in check_layout(figure))


@pytest.mark.parametrize("values", [[], [None], [math.nan], [0.0], [-1.0]])
def test_little_data(values: list[float | None], check_layout: Check) -> None:
    check_layout(plot_lines([chart({"s": values})]))
    check_layout(plot_lines([]))
