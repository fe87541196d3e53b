"""What every chart must satisfy, measured with the Agg renderer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text


@pytest.fixture
def check_layout() -> Callable[[Figure], list[str]]:
    """Assert that a text lies inside the figure and touches no other; gives all visible texts."""

    def check(figure: Figure) -> list[str]:
        figure.canvas.draw()
        hidden = _undrawn_ticks(figure)
        texts = [
            text
            for text in figure.findobj(Text)
            if text.get_visible() and text.get_text().strip() and text not in hidden
        ]
        boxes = [t.get_window_extent() for t in texts]
        width, height = figure.canvas.get_width_height()
        for index, (text, box) in enumerate(zip(texts, boxes, strict=True)):
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text
            for other, room in zip(texts[index + 1 :], boxes[index + 1 :], strict=True):
                apart = box.x1 <= room.x0 or room.x1 <= box.x0 or box.y1 <= room.y0 or room.y1 <= box.y0
                assert apart, f"{text} lies on {other}"
        return [text.get_text() for text in texts]

    return check


def _undrawn_ticks(figure: Figure) -> set[Text]:
    """Labels of ticks outside the limits of their axis."""
    labels = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not low <= tick.get_loc() <= high:
                labels |= {tick.label1, tick.label2}
    return labels
