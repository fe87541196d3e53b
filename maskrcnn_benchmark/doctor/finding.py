"""Result of a check: one statement about one or several keys, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

LEVELS = ("ok", "note", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Attributes:
        level: "ok" (checked and fine), "note" (worth knowing), "warning" (the run works, its result will
            probably disappoint), "error" (the run stops or its result is void).
        keys: the configuration keys concerned.
        text: the result, with numbers.
        advice: what to do; empty where nothing needs to be done.
    """

    level: str
    keys: tuple[str, ...]
    text: str
    advice: str = ""


class NotChecked(Exception):
    """A check cannot run; the message says why. The cause itself is reported by another check."""


def ok(text: str, *keys: str) -> Finding:
    """Return a finding on something that was checked and is fine."""
    return Finding("ok", keys, text)


def note(text: str, *keys: str, advice: str = "") -> Finding:
    """Return a finding on something worth knowing."""
    return Finding("note", keys, text, advice)


def warning(text: str, *keys: str, advice: str) -> Finding:
    """Return a finding on something that will probably spoil the result."""
    return Finding("warning", keys, text, advice)


def error(text: str, *keys: str, advice: str) -> Finding:
    """Return a finding on something that stops the run or makes its result void."""
    return Finding("error", keys, text, advice)


def keys_in(text: str) -> list[str]:
    """Return the config keys that a message names, each once."""
    return list(dict.fromkeys(re.findall(r"\b[A-Z][A-Z0-9_]+(?:\.[A-Z0-9_]+)+\b", text)))


def listed(names: list[str], limit: int = 6) -> str:
    """Join the first `limit` names, and say how many more there are."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def size_text(number: float) -> str:
    """Format a number of bytes: "512 MB", "1.5 GB" (powers of 1024)."""
    for unit in ("B", "kB", "MB"):
        if number < 999.5:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GB"
