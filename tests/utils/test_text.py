"""Names from outside in messages, logs, tables and CSV files."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import pytest

from maskrcnn_benchmark.utils.errors import DataError, run_cli
from maskrcnn_benchmark.utils.logger import setup_logger
from maskrcnn_benchmark.utils.table import format_table, write_csv
from maskrcnn_benchmark.utils.text import LIMIT, printable, shortened

EVIL = "cat\x1b[31m\r\n12:00:00 I all is well\x07\u202e"
ESCAPED = "cat\\x1b[31m\\r\\n12:00:00 I all is well\\x07\\u202e"


@pytest.mark.parametrize("value", [3, "a", "it's", [1, "b"], (1.5,), {"b": 1, "a": None}, True, None, [], ()])
def test_short_values_are_shown_whole(value: Any) -> None:
    assert shortened(value) == repr(value)


def test_no_value_is_shown_long() -> None:
    shared: list[Any] = ["x"]
    for _ in range(60):
        shared = [shared] * 9
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (
        shared,
        deep,
        "x" * 10**7,
        {i: i for i in range(10**5)},
        10**6000,
        -(10**6000),
        [10**6000] * 99,
    ):
        assert len(shortened(value)) <= LIMIT
    assert shortened(10**6000) == "a whole number of about 6000 digits"


def test_control_characters_are_escaped() -> None:
    assert printable(EVIL) == ESCAPED
    assert printable("a\tb\nc\x9b", lines=True) == "a\tb\nc\\x9b"
    assert printable("naïve 猫 😀") == "naïve 猫 😀"
    assert printable("\ud800").encode() == b"\\ud800"


def test_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise DataError(f"class {EVIL}")

    with pytest.raises(SystemExit):
        run_cli(main)
    assert capsys.readouterr().err == f"error: class {ESCAPED}\n"


def test_logs_have_no_foreign_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = setup_logger(str(tmp_path), 0)
    logger.info("class %s", EVIL)
    logger.info("\n%s", format_table(["name"], [[EVIL], ["b"]]))
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
    logging.getLogger("maskrcnn_benchmark").propagate = True
    text = (tmp_path / "log.txt").read_text()
    assert capsys.readouterr().out == text
    lines = text.splitlines()
    assert lines[0].endswith(f"I class {ESCAPED}")
    assert lines[-2:] == [ESCAPED, "b"] and len(lines) == 6


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\uff1d1", "'\uff1d1"),
        ("a=1", "a=1"),
        ("-5", "-5"),
        ("+1.5e-3", "+1.5e-3"),
        (-5, "-5"),
        (-0.25, "-0.25"),
        (None, ""),
        ("", ""),
        ("\ud800", "\\ud800"),
        ('a,"b"\nc', 'a,"b"\nc'),
    ],
)
def test_cells_are_no_formulas(tmp_path: Path, value: Any, cell: str) -> None:
    write_csv(tmp_path / "x.csv", [["name", "AP"], [value, 0.5]])
    with open(tmp_path / "x.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["name", "AP"], [cell, "0.5"]]
