"""A value per class over the sorted classes, with the base and the steps marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from maskrcnn_benchmark.visualize.colors import GRID, INK, PALETTE
from maskrcnn_benchmark.visualize.figure import add_legend, label_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

_SIZE = (8.2, 4.4)
_NAMED_CLASSES = 60  # at most so many names fit below the axis
_NAME_LENGTH, _NAME_HEIGHT = 28, 0.062  # characters at most, inches per character
_BAND = "#F2F4F7"
_HATCHES = ("", "////", "....")  # of groups whose colour is in use already
# Colours belong to the groups: series differ in grey and marker.
_SERIES = (("o", "#9A9A9A"), ("s", "#000000"), ("^", "#5C5C5C"), ("D", "#C4C4C4"))


@dataclass(frozen=True)
class ClassChart:
    """What a chart over classes shows.

    Attributes:
        series: name -> a value per class in label order; None (and, with `log`, values below or equal to 0)
            are left out. A series may cover the first classes only.
        groups: name -> number of classes, in label order: marked by the colours of the groups.
        names: of the classes, written below the axis where they fit; labels (1, 2, ...) otherwise.
        log: logarithmic y axis of whole decades. Else it starts at 0 unless a value is negative.
        level: name and height of a dashed line across the chart.
    """

    title: str
    y_label: str
    series: Mapping[str, Sequence[float | None]]
    groups: Mapping[str, int]
    names: Sequence[str] = field(default=())
    log: bool = False
    level: tuple[str, float] | None = None


def plot_classes(chart: ClassChart) -> Figure:
    """Plot a mark per class and series over shaded groups, with a legend on the right."""
    figure, (axes,) = new_figure(1, 1, _SIZE)
    classes = max(1, sum(chart.groups.values()))
    label_axes(axes, chart.title, "label (classes by training instances, descending)", chart.y_label)
    axes.set_xlim(0.5, classes + 0.5)
    handles = _plot_series(axes, chart, classes)
    _scale_values(axes, chart)
    _name_classes(figure, axes, chart.names, classes)
    handles += _plot_groups(figure, axes, chart.groups)
    figure.set_figwidth(figure.get_figwidth() + add_legend(axes, handles))
    return figure


def _plot_series(axes: Axes, chart: ClassChart, classes: int) -> list[Artist]:
    """Draw the marks, later series smaller so that they hide none, and the level; what the legend shows."""
    handles: list[Artist] = []
    width = _SIZE[0] * 72 / classes  # points per class
    for index, (name, values) in enumerate(chart.series.items()):
        marker, color = _SERIES[index % len(_SERIES)]
        known = [(i, v) for i, v in enumerate(values, start=1) if v is not None and _is_shown(v, chart.log)]
        style: dict[str, Any] = {"marker": marker, "color": color, "linestyle": "", "label": name}
        size = min(8.0, max(2.5, 0.6 * width)) * 0.7**index
        lines = axes.plot([i for i, _ in known], [v for _, v in known], markersize=size, zorder=3, **style)
        lines[0].set_clip_on(False)
        handles.append(axes.plot([], [], markersize=7 * 0.85**index, **style)[0])
    if chart.level is not None:
        name, height = chart.level
        handles.append(axes.axhline(height, color=INK, linestyle="--", linewidth=1.2, label=name))
    return handles


def _is_shown(value: float, log: bool) -> bool:
    """Whether a value has a position on the axis."""
    return math.isfinite(value) and (value > 0 or not log)


def _scale_values(axes: Axes, chart: ClassChart) -> None:
    """Set the y axis: whole decades with a grid, or from 0 on."""
    values = [v for some in chart.series.values() for v in some if v is not None and _is_shown(v, chart.log)]
    values += [chart.level[1]] if chart.level is not None else []
    if chart.log:
        low, high = decades(min(values, default=1.0), max(values, default=1.0))
        axes.set_yscale("log")
        axes.set_ylim(low * 10**-0.1, high * 10**0.02)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    else:
        low, high = min([0.0, *values]), max(values, default=1.0)
        axes.set_ylim(low, high + 0.05 * (high - low or 1.0))
    axes.grid(axis="y", color=GRID)


def decades(low: float, high: float) -> tuple[float, float]:
    """Powers of ten that enclose the positive numbers `low` to `high`, at least one decade apart."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    return 10.0**first, 10.0 ** max(last, first + 1)


def _name_classes(figure: Figure, axes: Axes, names: Sequence[str], classes: int) -> None:
    """Write the names of the classes upwards where they fit, else round labels."""
    from matplotlib.ticker import MaxNLocator

    if names and classes <= _NAMED_CLASSES:
        texts = [_shorten(name) for name in names[:classes]]
        axes.set_xticks(range(1, len(texts) + 1), texts, rotation=90, fontsize=8)
        axes.set_xlabel("class (by training instances, descending)")
        figure.set_figheight(figure.get_figheight() + _NAME_HEIGHT * max(map(len, texts)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))


def _shorten(name: str) -> str:
    """Cut a long name and end it with dots."""
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 3]}..."


def _plot_groups(figure: Figure, axes: Axes, groups: Mapping[str, int]) -> list[Artist]:
    """Mark every group by a strip of its colour on top of the plot, and shade every second one.

    Names with numbers of classes stand above the strips where all fit, else they are returned for the legend.
    """
    from matplotlib.patches import Rectangle

    edges = [0, *accumulate(groups.values())]
    strips: list[Artist] = []
    texts: list[Text] = []
    across = axes.get_xaxis_transform()
    for index, (name, count) in enumerate(groups.items()):
        left, color = edges[index] + 0.5, PALETTE[index % len(PALETTE)]
        if index % 2 == 0:
            axes.axvspan(left, left + count, color=_BAND, zorder=0)
        label = f"{name} ({count} class{'es' if count != 1 else ''})"
        strip = Rectangle((left, 1.0), count, 0.025, transform=across, clip_on=False, label=label)
        strip.set(facecolor=color, edgecolor="white", linewidth=0)
        strip.set_hatch(_HATCHES[index // len(PALETTE) % len(_HATCHES)])
        strips.append(axes.add_patch(strip))
        middle = (left + count / 2, 1.04)
        texts.append(
            axes.text(*middle, label, transform=across, ha="center", va="bottom", fontsize=9, color=INK)
        )
    axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=12, color=INK, pad=26 if texts else 6)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    room = [axes.bbox.width * count / max(1, edges[-1]) for count in groups.values()]
    fits = all(t.get_window_extent(renderer).width < w - 4 for t, w in zip(texts, room, strict=True))
    if fits:
        return []
    for text in texts:
        text.remove()
    axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=12, color=INK, pad=12)
    return strips
