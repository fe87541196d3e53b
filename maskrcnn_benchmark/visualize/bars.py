"""Horizontal bars with the spread of repeated measurements, drawn with Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from PIL import Image, ImageDraw

from maskrcnn_benchmark.visualize.colors import Color, load_font
from maskrcnn_benchmark.visualize.curves import nice_ticks

_INK: Color = (40, 40, 40)
_GRID: Color = (222, 222, 222)
_FIRST: Color = (38, 110, 180)
_OTHER: Color = (150, 186, 220)
_PALE: Color = (208, 208, 208)
_ROW, _TOP, _BOTTOM = 40, 62, 64


@dataclass(frozen=True)
class Bar:
    """One row: its name and its measurements (none: the row stays empty); `pale` bars are references."""

    name: str
    values: Sequence[float]
    pale: bool = False


class _Scale:
    """Pixel columns of values between the plot's edges."""

    def __init__(self, values: Sequence[float], left: float, right: float) -> None:
        self.ticks = nice_ticks(min([0.0, *values]), max(values, default=1.0))
        self.left, self.right = left, right

    def __call__(self, value: float) -> float:
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return self.left + share * (self.right - self.left)


def draw_bars(
    title: str, x_label: str, bars: Sequence[Bar], width: int = 820, *, compare: bool = True
) -> Image.Image:
    """An RGB image: one bar per row up to the mean, a whisker of one standard deviation, a dot per value
    where there are several.

    The axis begins at 0 unless a value is negative. With `compare` the first bar stands out and a
    dotted line continues its mean.
    """
    height = _TOP + _BOTTOM + _ROW * max(1, len(bars))
    image = Image.new("RGB", (width, height), (255, 255, 255))
    pen, font = ImageDraw.Draw(image), load_font(15)
    left = max((pen.textlength(bar.name, font=font) for bar in bars), default=0) + 26
    column = _Scale([v for bar in bars for v in bar.values], left, width - 84)
    bottom = height - _BOTTOM
    pen.text((width / 2, 26), title, fill=_INK, font=load_font(19), anchor="mm")
    for tick in column.ticks:
        pen.line([(column(tick), _TOP - 8), (column(tick), bottom)], fill=_GRID)
        pen.text((column(tick), bottom + 8), f"{tick:g}", fill=_INK, font=font, anchor="mt")
    pen.text(((left + column.right) / 2, height - 18), x_label, fill=_INK, font=font, anchor="mm")
    for row, bar in enumerate(bars):
        middle = _TOP + _ROW * (row + 0.5)
        pen.text((left - 12, middle), bar.name, fill=_INK, font=font, anchor="rm")
        if bar.values:
            _draw_bar(
                pen, bar, middle, column, _PALE if bar.pale else _OTHER if row or not compare else _FIRST
            )
    if compare and bars and bars[0].values:
        mean = column(fmean(bars[0].values))
        for y in range(_TOP, bottom, 8):
            pen.line([(mean, y), (mean, y + 3)], fill=_FIRST, width=2)
    pen.line([(left, _TOP - 8), (left, bottom)], fill=_INK, width=2)
    return image


def _draw_bar(pen: ImageDraw.ImageDraw, bar: Bar, middle: float, column: _Scale, color: Color) -> None:
    """The bar of one row with its whisker and dots, and its mean in figures at the right edge."""
    mean = fmean(bar.values)
    ends = sorted((column(0.0), column(mean)))
    pen.rectangle([ends[0], middle - 12, ends[1], middle + 12], fill=color)
    if len(bar.values) > 1:
        spread = stdev(bar.values)
        low, high = column(mean - spread), column(mean + spread)
        pen.line([(low, middle), (high, middle)], fill=_INK, width=2)
        for end in (low, high):
            pen.line([(end, middle - 6), (end, middle + 6)], fill=_INK, width=2)
    for value in bar.values if len(bar.values) > 1 else ():
        x = column(value)
        pen.ellipse([x - 3, middle - 3, x + 3, middle + 3], outline=_INK, fill=(255, 255, 255))
    pen.text((column.right + 12, middle), f"{mean:.3f}", fill=_INK, font=load_font(15), anchor="lm")
