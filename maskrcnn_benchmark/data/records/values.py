"""Values of records: integers, finite numbers, flags, text, and how they are shown in messages."""

from __future__ import annotations

import reprlib
import sys
from typing import Any

_LARGEST, _LOWEST = sys.float_info.max, -(2**63)
_FLAG_WORDS = {
    **dict.fromkeys(("", "0", "false", "no", "none", "null", "unspecified"), False),
    **dict.fromkeys(("1", "true", "yes"), True),
}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 60
_SHORT.maxlevel, _SHORT.maxlist = 3, 6


def is_integer(value: Any) -> bool:
    """Whether `value` is an integer of 64 bits (no bool)."""
    return isinstance(value, int) and not isinstance(value, bool) and _LOWEST <= value < -_LOWEST


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number that a float64 holds (no bool; NaN and infinities are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST


def is_text(value: Any) -> bool:
    """Whether `value` is text that can be written: no lone surrogates (half a character), no NUL."""
    if not isinstance(value, str):
        return False
    return value.isprintable() or not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value)


def read_flag(value: Any) -> tuple[bool, str]:
    """Read a flag; returns it and, where it is not written as 0, 1, false or true, how it is written.

    Fractions 0.0 and 1.0, null (false) and words are read: "0", "false", "no", "none", "null", "Unspecified"
    and "" are false, "1", "true" and "yes" are true, in any case. Raises ValueError for anything else.
    """
    if isinstance(value, int) and value in (0, 1):
        return bool(value), ""
    if isinstance(value, float) and value in (0.0, 1.0):
        return bool(value), "a fraction"
    if value is None:
        return False, "null"
    if isinstance(value, str) and value.strip().lower() in _FLAG_WORDS:
        return _FLAG_WORDS[value.strip().lower()], "text"
    raise ValueError(f"{shown(value)}; expected 0, 1, false or true")


def shown(value: Any) -> str:
    """`value` for a message: its repr, shortened, in one line."""
    try:
        return _SHORT.repr(value).encode("utf-8", "backslashreplace").decode()
    except ValueError:  # an integer of more digits than Python converts
        return f"a value of type {type(value).__name__}"
