"""Text that comes from outside, made harmless in messages: short values, escaped control characters."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from itertools import islice
from typing import Any

LIMIT = 160
"""Characters of a value in a message."""

# Controls (ANSI escapes begin with one), separators of lines, marks that turn the direction of writing, and
# surrogates, which cannot be written as UTF-8. A line break and a tab are separate: tables have them.
_HIDDEN = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL = re.compile(f"[{_HIDDEN}]")
_CONTROL_OR_BREAK = re.compile(f"[\t\n{_HIDDEN}]")


class _Shortener(reprlib.Repr):
    """`repr` of the standard containers that reads no more of a value than it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 20
        self.maxarray = self.maxdeque = 20
        self.maxstring = self.maxother = self.maxlong = LIMIT

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write integers of more than 4300 digits."""
        if x.bit_length() > 3 * LIMIT:
            return f"a whole number of about {int(x.bit_length() * 0.30103)} digits"
        return repr(x)

    def repr_dict(self, x: Mapping[Any, Any], level: int) -> str:
        """Keys stay in their order."""
        if level <= 0:
            return "{...}"
        items = [f"{self.repr1(k, level - 1)}: {self.repr1(v, level - 1)}" for k, v in islice(x.items(), 20)]
        return "{" + ", ".join([*items, *["..."] * (len(x) > 20)]) + "}"


_SHORTENER = _Shortener()


def shortened(value: Any, limit: int = LIMIT) -> str:
    """Return `repr(value)` for a message: at most `limit` characters, in bounded time for any value."""
    try:
        text = _SHORTENER.repr(value)
    except (ValueError, TypeError, RecursionError, AttributeError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def shortened_text(text: str, limit: int = LIMIT) -> str:
    """Return text for a message, without quotes: at most `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def printable(text: str, *, lines: bool = False) -> str:
    r"""Return text with control characters as escapes (`\x1b`); with `lines`, line breaks and tabs stay.

    For names from data and files that come into messages, logs and tables: they can neither change a
    terminal nor begin a line of their own.
    """
    return (_CONTROL if lines else _CONTROL_OR_BREAK).sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
