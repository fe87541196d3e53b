"""Aligned text tables for the terminal and the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def _cell(value: Any) -> str:
    """Text of one cell: None is "-", floats get three decimals with trailing zeros cut to one."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value != value:
        return "nan"
    text = f"{value:.3f}"
    while text.endswith("0") and text[-2] != ".":
        text = text[:-1]
    return text


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def format_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Lay out rows under headers; columns of numbers are aligned right, others left. No final newline.

    Floats of a column share one number of decimals (the most that any of them needs, one to three).

    Raises:
        ValueError: a row has not as many cells as there are headers.
    """
    for number, row in enumerate(rows):
        if len(row) != len(headers):
            raise ValueError(f"row {number} has {len(row)} cells for {len(headers)} headers")
    columns = []
    for index, header in enumerate(headers):
        values = [row[index] for row in rows]
        cells = [_cell(v) for v in values]
        decimals = max(
            (len(c.partition(".")[2]) for c, v in zip(cells, values, strict=True) if isinstance(v, float)),
            default=0,
        )
        if decimals:
            cells = [
                f"{v:.{decimals}f}" if isinstance(v, float) and v == v else c
                for c, v in zip(cells, values, strict=True)
            ]
        width = max(len(header), *(len(c) for c in cells)) if cells else len(header)
        right = bool(values) and all(_is_number(v) for v in values)
        columns.append([c.rjust(width) if right else c.ljust(width) for c in [header, "-" * width, *cells]])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))
