"""Line charts: one or several panels in which a series looks the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from maskrcnn_benchmark.visualize.colors import GRID, INK
from maskrcnn_benchmark.visualize.figure import add_legend, label_axes, line_style, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = (6.4, 4.2)
"""Width and height of a panel in inches, without its legend."""
_MAX_MARKERS = 25


@dataclass(frozen=True)
class LineChart:
    """What one panel shows.

    Attributes:
        x: positions on the x axis: numbers, or names, which are spaced evenly.
        series: name -> a value per position; None and NaN interrupt the line.
        styles: name -> style index (see `figure.line_style`); series that are not in it get the free
            indices in their order.
    """

    title: str
    x_label: str
    y_label: str
    x: Sequence[str] | Sequence[float]
    series: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    styles: Mapping[str, int] = field(default_factory=dict)


def plot_lines(
    charts: Sequence[LineChart], columns: int | None = None, size: tuple[float, float] = PANEL
) -> Figure:
    """Plot charts side by side, or in rows of `columns`, as panels of `size` (w, h) inches.

    A series has one style in all panels. Panels that share a series share one legend. The y axis starts at 0
    unless a value is negative.
    """
    charts = charts or [LineChart("", "", "", [])]
    columns = columns or len(charts)
    figure, panels = new_figure(len(charts), columns, size)
    styles = _assign_styles(charts)
    for axes, chart in zip(panels, charts, strict=True):
        _plot_panel(axes, chart, styles)
    _add_legends(figure, panels, columns)
    figure.draw_without_rendering()
    for axes in panels:
        _thin_labels(axes)
    return figure


def _add_legends(figure: Figure, panels: Sequence[Axes], columns: int) -> None:
    """Add one legend for panels that share a series, else one per panel, and widen the figure by them."""
    handles = [dict(zip(*reversed(a.get_legend_handles_labels()), strict=True)) for a in panels]
    names = [set(some) for some in handles if some]
    if len(names) > 1 and set.intersection(*names):
        union = {name: handle for some in handles for name, handle in some.items()}
        wider = add_legend(figure, list(union.values()))
    else:
        widths = [add_legend(a, list(some.values())) for a, some in zip(panels, handles, strict=True)]
        wider = sum(max(widths[column::columns], default=0.0) for column in range(columns))
    figure.set_figwidth(figure.get_figwidth() + wider)


def _assign_styles(charts: Sequence[LineChart]) -> dict[str, int]:
    """Style index of every series of some charts."""
    styles = {name: index for chart in charts for name, index in chart.styles.items()}
    free = (index for index in range(10**6) if index not in set(styles.values()))
    for name in dict.fromkeys(name for chart in charts for name in chart.series):
        if name not in styles:
            styles[name] = next(free)
    return styles


def _plot_panel(axes: Axes, chart: LineChart, styles: Mapping[str, int]) -> None:
    """Draw the lines of one panel, its grid and the names of its axes."""
    label_axes(axes, chart.title, chart.x_label, chart.y_label)
    axes.grid(axis="y", color=GRID)
    names = [str(x) for x in chart.x if isinstance(x, str)]
    positions = list(range(len(names))) if names else [float(x) for x in chart.x]
    lines = {
        name: [math.nan if v is None else float(v) for v in values] for name, values in chart.series.items()
    }
    for name, values in lines.items():
        axes.plot(
            positions,
            values,
            label=name,
            linewidth=1.8,
            markersize=5,
            markevery=_marked(values),
            clip_on=False,
            **line_style(styles[name]),
        )
    if names:
        axes.set_xticks(positions, names)
        axes.set_xlim(-0.5, len(names) - 0.5)
    known = [v for values in lines.values() for v in values if math.isfinite(v)]
    if not known:
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=INK)
        axes.set_xticks([])
        axes.set_yticks([])
    low, high = min([0.0, *known]), max([0.0, *known])
    span = high - low or 1.0
    axes.set_ylim(low - 0.06 * span * (low < 0), high + 0.06 * span if known else 1.0)
    if low < 0:
        axes.axhline(0.0, color=INK, linewidth=0.8)


def _marked(values: Sequence[float]) -> list[int]:
    """Indices that get a marker: about 25, evenly spread, and values between two gaps, which have no line."""
    every = max(1, len(values) // _MAX_MARKERS)
    known = [False, *(math.isfinite(v) for v in values), False]
    alone = {i for i in range(len(values)) if known[i + 1] and not known[i] and not known[i + 2]}
    return sorted({*range(0, len(values), every), *alone})


def _thin_labels(axes: Axes) -> None:
    """Leave out names of positions, evenly, until none touches the next."""
    labels = [label for label in axes.get_xticklabels() if label.get_text()]
    if len(labels) < 2:
        return
    boxes = [label.get_window_extent() for label in labels]
    spacing = (boxes[-1].x0 + boxes[-1].x1 - boxes[0].x0 - boxes[0].x1) / 2 / (len(boxes) - 1)
    every = math.ceil((max(box.width for box in boxes) + 6) / max(1.0, spacing))
    for index, label in enumerate(labels):
        label.set_visible(index % every == 0)
