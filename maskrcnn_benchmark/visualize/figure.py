"""Common parts of all charts: line styles, panels, legends, image, file; imports matplotlib at first use."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from maskrcnn_benchmark.utils.files import StrPath, atomic_path
from maskrcnn_benchmark.visualize.colors import INK, PALETTE

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TOTAL, MEAN = -1, -2
"""Style indices of lines that sum up or average the others: black, solid and dashed."""
_DPI = 120
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
_LEGEND_SIZE = 9
_LEGEND_ROW = 0.2  # inches


def line_style(index: int) -> dict[str, Any]:
    """Colour, marker and line of a series, as keyword arguments of `Axes.plot`; always the same for an index.

    The six colours repeat with other markers, then with other lines: 126 styles differ.
    """
    if index in (TOTAL, MEAN):
        return {"color": "#000000", "marker": ".", "linestyle": "-" if index == TOTAL else (0, (3, 1.5))}
    return {
        "color": PALETTE[index % len(PALETTE)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": _LINES[index // len(PALETTE) % len(_LINES)],
    }


def new_figure(panels: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Make a figure with panels of `size` (w, h) inches in rows of `columns`; the figure and their axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)  # registers itself as the canvas of the figure
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # type: ignore[union-attr, call-arg]
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[panels:]:
        unused.remove()
    return figure, axes[:panels]


def label_axes(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Write title and names of the axes, and leave only the left and bottom edge of the frame."""
    axes.set_title(textwrap.fill(title, 62), loc="left", fontsize=12, color=INK)
    axes.set_xlabel(x_label, fontsize=10, color=INK)
    axes.set_ylabel(y_label, fontsize=10, color=INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def add_legend(owner: Figure | Axes, handles: Sequence[Artist]) -> float:
    """Put a legend right of a figure or of one panel; its width in inches. Long names are wrapped."""
    from matplotlib.axes import Axes

    if not handles:
        return 0.0
    figure = owner.get_figure(root=True)
    assert figure is not None
    height = owner.get_position().height if isinstance(owner, Axes) else 1.0
    labels = [textwrap.fill(str(handle.get_label()), 34) for handle in handles]
    lines = sum(1 + label.count("\n") for label in labels)
    fit = max(1, int((height * figure.get_figheight() - 0.5) / _LEGEND_ROW))
    where: dict[str, Any] = (
        {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)}
        if isinstance(owner, Axes)
        else {"loc": "outside right upper"}
    )
    legend = owner.legend(
        handles=list(handles),
        labels=labels,
        ncols=math.ceil(lines / fit),
        fontsize=_LEGEND_SIZE,
        handlelength=2.8,
        labelcolor=INK,
        frameon=False,
        **where,
    )
    return legend.get_window_extent(figure.canvas.get_renderer()).width / _DPI  # type: ignore[attr-defined]


def to_image(figure: Figure) -> Image.Image:
    """Render a figure as an RGB image, for notebooks."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]
    return Image.fromarray(pixels).convert("RGB")


def save_figure(figure: Figure, path: StrPath) -> None:
    """Write a figure as PNG in one step (see `atomic_path`). WriteError when the disk does not allow it."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)
