"""Line charts as PNG, drawn with Pillow alone so that reports need no plotting package."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from maskrcnn_benchmark.visualize.colors import Color, label_color, load_font

_INK: Color = (40, 40, 40)
_GRID: Color = (222, 222, 222)
_ZERO: Color = (130, 130, 130)
_MARGIN_LEFT, _MARGIN_TOP, _MARGIN_BOTTOM = 92, 56, 70


@dataclass(frozen=True)
class LineChart:
    """What one chart shows.

    `x_ticks` are the names of the positions 0..n-1 on the x axis; every series has n values, None where it
    is undefined (the line is interrupted there). The y axis starts at 0 unless a value is negative.
    """

    title: str
    x_label: str
    y_label: str
    x_ticks: Sequence[str]
    series: Mapping[str, Sequence[float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Frame:
    """Geometry of the plotting area in pixels, and the y range it shows."""

    left: float
    top: float
    right: float
    bottom: float
    low: float
    high: float
    positions: int

    def x(self, index: int) -> float:
        """Pixel column of position `index`."""
        if self.positions <= 1:
            return (self.left + self.right) / 2
        return self.left + 24 + index * (self.right - self.left - 48) / (self.positions - 1)

    def y(self, value: float) -> float:
        """Pixel row of `value`."""
        return self.bottom - (value - self.low) / (self.high - self.low) * (self.bottom - self.top)


def nice_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """About `count` round ticks (steps of 1, 2 or 5 times a power of ten) that enclose [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        low, high = (low, low + 1.0) if math.isfinite(low) else (0.0, 1.0)
    rough = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def draw_chart(chart: LineChart, size: tuple[int, int] = (820, 520)) -> Image.Image:
    """The chart as an RGB image of `size` (w, h): axes, ticks, a line with markers per series, legend."""
    image = Image.new("RGB", size, (255, 255, 255))
    pen = ImageDraw.Draw(image)
    font = load_font(15)
    values = [v for line in chart.series.values() for v in line if v is not None and math.isfinite(v)]
    ticks = nice_ticks(min([0.0, *values]), max(values, default=1.0))
    legend = max((pen.textlength(name, font=font) for name in chart.series), default=0) + 64
    frame = _Frame(
        left=_MARGIN_LEFT,
        top=_MARGIN_TOP,
        right=size[0] - legend,
        bottom=size[1] - _MARGIN_BOTTOM,
        low=ticks[0],
        high=ticks[-1],
        positions=len(chart.x_ticks),
    )
    _draw_axes(pen, chart, frame, ticks)
    for number, values_of_line in enumerate(chart.series.values()):
        _draw_line(pen, frame, values_of_line, label_color(number), number)
    _draw_legend(pen, list(chart.series), frame)
    rotated_text(image, chart.y_label, center=(13, (frame.top + frame.bottom) / 2))
    return image


def draw_charts(
    charts: Sequence[LineChart], size: tuple[int, int] = (820, 520), columns: int | None = None
) -> Image.Image:
    """Several charts in one image, each of `size`: side by side, or in rows of `columns`."""
    columns = columns or max(1, len(charts))
    rows = max(1, math.ceil(len(charts) / columns))
    sheet = Image.new("RGB", (size[0] * columns, size[1] * rows), (255, 255, 255))
    for number, chart in enumerate(charts):
        row, column = divmod(number, columns)
        sheet.paste(draw_chart(chart, size), (column * size[0], row * size[1]))
    return sheet


def _draw_axes(pen: ImageDraw.ImageDraw, chart: LineChart, frame: _Frame, ticks: Sequence[float]) -> None:
    """Title, grid, axes, tick labels and the x axis name. X labels are thinned out when they would touch."""
    font, title_font = load_font(15), load_font(19)
    middle = (frame.left + frame.right) / 2
    pen.text((middle, 26), chart.title, fill=_INK, font=title_font, anchor="mm")
    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    for tick in ticks:
        row = frame.y(tick)
        pen.line([(frame.left, row), (frame.right, row)], fill=_ZERO if tick == 0 else _GRID)
        pen.text((frame.left - 9, row), f"{tick:.{decimals}f}", fill=_INK, font=font, anchor="rm")
    pen.line(
        [(frame.left, frame.top), (frame.left, frame.bottom), (frame.right, frame.bottom)], fill=_INK, width=2
    )
    widest = max((pen.textlength(name, font=font) for name in chart.x_ticks), default=0) + 12
    spacing = (frame.right - frame.left - 48) / max(1, frame.positions - 1)
    every = max(1, math.ceil(widest / max(1.0, spacing)))
    for index, name in enumerate(chart.x_ticks):
        column = frame.x(index)
        pen.line([(column, frame.bottom), (column, frame.bottom + 5)], fill=_INK, width=2)
        if index % every == 0:
            pen.text((column, frame.bottom + 18), name, fill=_INK, font=font, anchor="mm")
    pen.text((middle, frame.bottom + 46), chart.x_label, fill=_INK, font=font, anchor="mm")


def _draw_line(
    pen: ImageDraw.ImageDraw, frame: _Frame, values: Sequence[float | None], color: Color, number: int
) -> None:
    """One series: segments between neighbouring defined values, and a marker at each of them."""
    previous: tuple[float, float] | None = None
    for index, value in enumerate(values):
        if value is None or not math.isfinite(value):
            previous = None
            continue
        point = (frame.x(index), frame.y(value))
        if previous is not None:
            pen.line([previous, point], fill=color, width=3)
        draw_marker(pen, point, color, number)
        previous = point


def draw_marker(
    pen: ImageDraw.ImageDraw, point: tuple[float, float], color: Color, number: int, r: float = 5
) -> None:
    """Circle, square, triangle or diamond by series number, so that lines differ without colour too.

    `r`: half its width in pixels.
    """
    x, y = point
    if number % 4 == 0:
        pen.ellipse([x - r, y - r, x + r, y + r], fill=color)
    elif number % 4 == 1:
        pen.rectangle([x - r, y - r, x + r, y + r], fill=color)
    elif number % 4 == 2:
        pen.polygon([(x, y - r - 1), (x + r + 1, y + r), (x - r - 1, y + r)], fill=color)
    else:
        pen.polygon([(x, y - r - 2), (x + r + 2, y), (x, y + r + 2), (x - r - 2, y)], fill=color)


def _draw_legend(pen: ImageDraw.ImageDraw, names: Sequence[str], frame: _Frame) -> None:
    """Line sample, marker and name of every series right of the plot; many rows move closer together."""
    rows = max(1, len(names))
    spacing = min(26.0, (frame.bottom - frame.top + _MARGIN_BOTTOM - 10) / rows)
    font = load_font(15 if spacing >= 16 else max(7, int(spacing)))
    for number, name in enumerate(names):
        y = frame.top + 10 + number * spacing
        color = label_color(number)
        pen.line([(frame.right + 14, y), (frame.right + 42, y)], fill=color, width=3)
        draw_marker(pen, (frame.right + 28, y), color, number)
        pen.text((frame.right + 50, y), name, fill=_INK, font=font, anchor="lm")


def rotated_text(
    image: Image.Image, text: str, center: tuple[float, float], size: int = 15, color: Color = _INK
) -> None:
    """Write `text` upwards with its middle at `center`, on white; `size`: height of the font."""
    font = load_font(size)
    width, height = math.ceil(font.getlength(text)) + 4, math.ceil(size * 1.4)
    strip = Image.new("RGB", (width, height), (255, 255, 255))
    ImageDraw.Draw(strip).text((width / 2, height / 2), text, fill=color, font=font, anchor="mm")
    turned = strip.rotate(90, expand=True)
    image.paste(turned, (round(center[0] - turned.width / 2), round(center[1] - turned.height / 2)))
