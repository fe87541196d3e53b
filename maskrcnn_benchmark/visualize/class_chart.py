"""A value per class over the sorted classes, with the base and the steps marked; drawn with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from PIL import Image, ImageDraw

from maskrcnn_benchmark.visualize.colors import Color, load_font
from maskrcnn_benchmark.visualize.curves import draw_marker, nice_ticks, rotated_text

_INK: Color = (40, 40, 40)
_GRID: Color = (216, 216, 216)
_FAINT: Color = (236, 236, 236)
_BAND: Color = (240, 245, 251)
_EDGE: Color = (120, 140, 165)
_LEVEL: Color = (90, 90, 90)
_SERIES: tuple[Color, ...] = ((128, 128, 128), (206, 72, 36), (28, 104, 178), (44, 140, 72))
_LEFT, _RIGHT, _TOP, _ROW_OF_NAMES = 96, 24, 100, 15
_BELOW = 0.1  # share of a decade below the lowest tick, so that marks there keep off the axis


@dataclass(frozen=True)
class ClassChart:
    """What a chart shows.

    Attributes:
        series: name -> a value per class in label order; None (and, with `log`, what is not positive) is
            left out. A series may cover the first classes only.
        groups: name -> number of classes, in label order: shaded in turn, with the name on top.
        names: of the classes, written below the axis where there is room; labels (1, 2, ...) otherwise.
        log: logarithmic y axis of whole decades. Else it begins at 0 unless a value is negative.
        level: name and height of a dashed line across the chart.
    """

    title: str
    y_label: str
    series: Mapping[str, Sequence[float | None]]
    groups: Mapping[str, int]
    names: Sequence[str] = field(default=())
    log: bool = False
    level: tuple[str, float] | None = None


@dataclass(frozen=True)
class _Frame:
    """The plotting area in pixels, what it spans, and the ticks of its y axis."""

    left: float
    top: float
    right: float
    bottom: float
    classes: int
    ticks: Sequence[float]
    log: bool

    def x(self, position: float) -> float:
        """Pixel column of the middle of class `position` (0, 1, ...)."""
        return self.left + (position + 0.5) * (self.right - self.left) / max(1, self.classes)

    def y(self, value: float) -> float:
        """Pixel row of a value."""
        low, high, here = self.ticks[0], self.ticks[-1], value
        if self.log:
            low, high, here = math.log10(low) - _BELOW, math.log10(high), math.log10(value)
        return self.bottom - (here - low) / (high - low) * (self.bottom - self.top)


def draw_class_chart(chart: ClassChart, size: tuple[int, int] = (980, 520)) -> Image.Image:
    """The chart as an RGB image of `size` (w, h): a dot per class and series, legend above the plot."""
    image = Image.new("RGB", size, (255, 255, 255))
    pen = ImageDraw.Draw(image)
    classes = sum(chart.groups.values())
    font = load_font(_ROW_OF_NAMES - 3)
    named = bool(chart.names) and (size[0] - _LEFT - _RIGHT) / max(1, classes) >= _ROW_OF_NAMES
    below = max(font.getlength(n) for n in chart.names) + 46 if named else 66
    ticks = _ticks(chart)
    frame = _Frame(_LEFT, _TOP, size[0] - _RIGHT, size[1] - below, classes, ticks, chart.log)
    pen.text((size[0] / 2, 22), chart.title, fill=_INK, font=load_font(19), anchor="mm")
    _draw_groups(pen, chart, frame)
    _draw_y_axis(pen, frame)
    _draw_x_axis(image, pen, chart.names if named else (), frame)
    if chart.level is not None:
        row = frame.y(chart.level[1])
        for x in range(round(frame.left), round(frame.right), 12):
            pen.line([(x, row), (min(x + 7, frame.right), row)], fill=_LEVEL, width=2)
    radius = min(5.0, max(1.6, (frame.right - frame.left) / max(1, classes) * 0.32))
    for number, values in enumerate(chart.series.values()):
        for position, value in enumerate(values):
            if _is_shown(value, chart.log):
                _draw_value(pen, (frame.x(position), frame.y(value or 0.0)), number, radius)
    _draw_legend(pen, chart, frame)
    name = "class" if named else "label (classes by number of training instances, descending)"
    pen.text(((frame.left + frame.right) / 2, size[1] - 16), name, fill=_INK, font=load_font(15), anchor="mm")
    rotated_text(image, chart.y_label, center=(14, (frame.top + frame.bottom) / 2))
    return image


def decades(low: float, high: float) -> list[float]:
    """Whole powers of ten that enclose the positive numbers `low` to `high`; at least two."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _is_shown(value: float | None, log: bool) -> bool:
    """Whether a value has a place in the chart."""
    return value is not None and math.isfinite(value) and (value > 0 or not log)


def _ticks(chart: ClassChart) -> list[float]:
    """Marks of the y axis that enclose all values."""
    values = [v for some in chart.series.values() for v in some if v is not None and _is_shown(v, chart.log)]
    values += [chart.level[1]] if chart.level is not None else []
    if chart.log:
        return decades(min(values, default=1.0), max(values, default=1.0))
    return nice_ticks(min([0.0, *values]), max(values, default=1.0))


def _draw_groups(pen: ImageDraw.ImageDraw, chart: ClassChart, frame: _Frame) -> None:
    """Shade every second group, draw the borders, write names in the largest size in which all fit.

    Where even the smallest does not fit, only names that fit are written.
    """
    edges = [0, *accumulate(chart.groups.values())]
    spans = [(frame.x(a - 0.5), frame.x(b - 0.5)) for a, b in zip(edges, edges[1:], strict=False)]
    for number, (left, right) in enumerate(spans):
        if number % 2 == 0:
            pen.rectangle([left, frame.top, right, frame.bottom], fill=_BAND)
        if number > 0:
            pen.line([(left, frame.top - 20), (left, frame.bottom)], fill=_EDGE)
    named = list(zip(chart.groups, spans, strict=True))

    def fits(name: str, span: tuple[float, float], size: int) -> bool:
        return load_font(size).getlength(name) <= span[1] - span[0] - 6

    size = next((s for s in (15, 14, 13, 12, 11, 10) if all(fits(n, span, s) for n, span in named)), 10)
    for name, span in named:
        if fits(name, span, size):
            middle = ((span[0] + span[1]) / 2, frame.top - 11)
            pen.text(middle, name, fill=_INK, font=load_font(size), anchor="mm")


def _draw_y_axis(pen: ImageDraw.ImageDraw, frame: _Frame) -> None:
    """Grid, numbers and the axis; with a logarithmic one faint lines at 2, 3, ... 9 of every decade."""
    font = load_font(15)
    for tick in frame.ticks:
        if frame.log and tick < frame.ticks[-1]:
            for row in (frame.y(tick * factor) for factor in range(2, 10)):
                pen.line([(frame.left, row), (frame.right, row)], fill=_FAINT)
        row = frame.y(tick)
        pen.line([(frame.left, row), (frame.right, row)], fill=_GRID)
        text = f"{tick:,.0f}".replace(",", " ") if tick >= 1000 else f"{tick:g}"
        pen.text((frame.left - 9, row), text, fill=_INK, font=font, anchor="rm")
    pen.line(
        [(frame.left, frame.top), (frame.left, frame.bottom), (frame.right, frame.bottom)], fill=_INK, width=2
    )


def _draw_x_axis(image: Image.Image, pen: ImageDraw.ImageDraw, names: Sequence[str], frame: _Frame) -> None:
    """Names of the classes, upwards; without them round labels."""
    if names:
        font_size = _ROW_OF_NAMES - 3
        for position, name in enumerate(names):
            length = load_font(font_size).getlength(name)
            center = (frame.x(position), frame.bottom + 8 + length / 2)
            rotated_text(image, name, center, size=font_size)
        return
    round_labels = (int(t) for t in nice_ticks(0, frame.classes, 8) if 1 < t <= frame.classes and t % 1 == 0)
    for label in (1, *round_labels):
        column = frame.x(label - 1)
        pen.line([(column, frame.bottom), (column, frame.bottom + 5)], fill=_INK, width=2)
        pen.text((column, frame.bottom + 18), str(label), fill=_INK, font=load_font(15), anchor="mm")


def _draw_value(pen: ImageDraw.ImageDraw, point: tuple[float, float], number: int, radius: float) -> None:
    """The mark of a class in the colour and form of its series; later ones are smaller and hide none."""
    draw_marker(pen, point, _SERIES[number % len(_SERIES)], number, radius * 0.7**number)


def _draw_legend(pen: ImageDraw.ImageDraw, chart: ClassChart, frame: _Frame) -> None:
    """Mark and name of every series, then of the level, in one row between title and plot."""
    x, y, font = frame.left, 54.0, load_font(15)
    for number, name in enumerate(chart.series):
        _draw_value(pen, (x + 6, y), number, 5.0)
        pen.text((x + 18, y), name, fill=_INK, font=font, anchor="lm")
        x += 44 + font.getlength(name)
    if chart.level is not None:
        for start in (0, 12):
            pen.line([(x + start, y), (x + start + 7, y)], fill=_LEVEL, width=2)
        pen.text((x + 26, y), chart.level[0], fill=_INK, font=font, anchor="lm")
