"""Aligned text tables for the terminal and the log, laid out by tabulate; tables as CSV files."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import SEPARATING_LINE, DataRow, Line, TableFormat, tabulate

from maskrcnn_benchmark.utils.files import StrPath, atomic_path
from maskrcnn_benchmark.utils.text import printable

_MAX_DECIMALS = 3
# tabulate's "simple", without its two extra columns around headers: the header is the first row here.
_LAYOUT = TableFormat(
    lineabove=None,
    linebelowheader=Line("", "-", "  ", ""),
    linebetweenrows=None,
    linebelow=None,
    headerrow=None,
    datarow=DataRow("", "  ", ""),
    padding=0,
    with_header_hide=None,
)
# First characters by which a spreadsheet takes text for a formula (OWASP, "CSV Injection").
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


def format_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Lay out rows under headers; numeric columns are aligned right, others left. No final newline.

    None becomes "-". Floats of a column get the same number of decimals: as many as the value with most
    significant decimals has, at least one, at most three. Control characters of names are escaped.

    Raises:
        ValueError: a row has more or fewer cells than there are headers.
    """
    for index, row in enumerate(rows):
        if len(row) != len(headers):
            raise ValueError(f"row {index} has {len(row)} cells for {len(headers)} headers")
    columns = [[row[index] for row in rows] for index in range(len(headers))]
    texts = [_format_column(values) for values in columns]
    return tabulate(
        [[printable(header) for header in headers], SEPARATING_LINE, *zip(*texts, strict=True)],
        tablefmt=_LAYOUT,
        colalign=["right" if _is_numeric(values) else "left" for values in columns],
        disable_numparse=True,
    )


def _format_column(values: Sequence[Any]) -> list[str]:
    """Text of the cells of one column."""
    finite = [value for value in values if isinstance(value, float) and math.isfinite(value)]
    decimals = max((_count_decimals(value) for value in finite), default=1)
    return [
        "-"
        if value is None
        else f"{value:.{decimals}f}"
        if isinstance(value, float)
        else printable(str(value))
        for value in values
    ]


def _count_decimals(value: float) -> int:
    """Decimals of `value` rounded to three, without trailing zeros; at least one."""
    return max(1, len(f"{value:.{_MAX_DECIMALS}f}".rstrip("0").partition(".")[2]))


def _is_numeric(values: Sequence[Any]) -> bool:
    """Whether a column has values and all of them are numbers or None."""
    return bool(values) and all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in values
    )


def csv_cell(value: Any) -> Any:
    """Return a cell of a CSV file: text that a spreadsheet would take for a formula begins with a quote.

    None is empty. Numbers, also as text, stay numbers.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def write_csv(path: StrPath, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as CSV in UTF-8 atomically (see `atomic_path`), every cell through `csv_cell`."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([csv_cell(value) for value in row] for row in rows)
