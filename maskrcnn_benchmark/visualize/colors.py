"""Colours of class labels and of charts, and the font of everything that is drawn on images."""

from __future__ import annotations

import colorsys

from PIL import ImageFont

Color = tuple[int, int, int]

# Colours that colour-blind readers tell apart, without the yellow, which is faint on white, and the black
# (Okabe and Ito 2008, "Color Universal Design").
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours of the groups and series of charts."""
INK, GRID = "#282828", "#DEDEDE"
"""Colours of text and axes, and of grid lines of charts."""

# Golden-ratio steps around the colour wheel keep neighbouring indices far apart for any number of classes.
_HUE_STEP = 0.61803398875


def label_color(index: int) -> Color:
    """Return a saturated RGB colour (0..255) for a class label or track id; always the same for an index."""
    hue = (0.02 + index * _HUE_STEP) % 1.0
    lightness = (0.50, 0.42, 0.58)[index % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def text_color(background: Color) -> Color:
    """Return black or white, whichever reads better on `background` (ITU-R BT.601 luma)."""
    luma = 0.299 * background[0] + 0.587 * background[1] + 0.114 * background[2]
    return (0, 0, 0) if luma > 140 else (255, 255, 255)


def load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's built-in scalable font at `size` pixels; no font file has to be installed."""
    return ImageFont.load_default(size)
