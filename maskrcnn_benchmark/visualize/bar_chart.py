"""Horizontal bars with mean and std of repeated measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from maskrcnn_benchmark.visualize.colors import GRID, INK, PALETTE
from maskrcnn_benchmark.visualize.figure import label_axes, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _ROW, _MARGIN = 7.6, 0.36, 1.3  # inches
_FIRST, _OTHER, _PALE = PALETTE[0], PALETTE[5], "#D0D0D0"


@dataclass(frozen=True)
class Bar:
    """One bar: its name and its measurements (none: it stays empty); `pale` bars are references."""

    name: str
    values: Sequence[float]
    pale: bool = False


def plot_bars(title: str, x_label: str, bars: Sequence[Bar], *, compare: bool = True) -> Figure:
    """Plot one bar per row: the mean in length and digits, one std, a dot per measurement.

    The axis starts at 0 unless a value is negative. With `compare` the first bar stands out and a dotted line
    continues its mean.
    """
    figure, (axes,) = new_figure(1, 1, (_WIDTH, _MARGIN + _ROW * max(1, len(bars))))
    label_axes(axes, title, x_label, "")
    axes.grid(axis="x", color=GRID)
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(1, len(bars)) - 0.4, -0.6)
    for row, bar in enumerate(bars):
        if bar.values:
            standard = _FIRST if compare and row == 0 else _OTHER
            _plot_bar(axes, row, bar.values, _PALE if bar.pale else standard)
    if compare and bars and bars[0].values:
        axes.axvline(fmean(bars[0].values), color=_FIRST, linestyle=":", linewidth=1.5)
    values = [value for bar in bars for value in (*bar.values, *_whisker(bar.values))]
    low, high = min([0.0, *values]), max([0.0, *values])
    axes.set_xlim(low * 1.04, high * 1.04 if high > 0 else 1.0 if low == 0 else 0.0)
    return figure


def _whisker(values: Sequence[float]) -> tuple[float, ...]:
    """Ends of the error bar: mean - std and mean + std; nothing for a single measurement."""
    return () if len(values) < 2 else (fmean(values) - stdev(values), fmean(values) + stdev(values))


def _plot_bar(axes: Axes, row: int, values: Sequence[float], color: str) -> None:
    """Draw the bar of one row, its std and dots, and its mean at the right edge."""
    mean = fmean(values)
    axes.barh(row, mean, height=0.64, color=color)
    if len(values) > 1:
        axes.errorbar(mean, row, xerr=stdev(values), color=INK, capsize=4, linewidth=1.4)
        axes.plot(values, [row] * len(values), "o", color="white", markeredgecolor=INK, markersize=4.5)
    axes.annotate(
        f"{mean:.3f}",
        (1.02, row),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=9,
        color=INK,
        annotation_clip=False,
    )
