"""What a check says: one statement about one or several keys, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

LEVELS = ("ok", "note", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Attributes:
        level: "ok" (looked at and fine), "note" (worth knowing), "warning" (the run works, its result will
            probably disappoint), "error" (the run stops or its result is void).
        keys: the configuration keys concerned.
        found: what was found, with numbers.
        advice: what to do; empty where nothing needs to be done.
    """

    level: str
    keys: tuple[str, ...]
    found: str
    advice: str = ""


class NotChecked(Exception):
    """A check cannot run; the message says why. The cause itself is reported by another check."""


def ok(found: str, *keys: str) -> Finding:
    """Something that was looked at and is fine."""
    return Finding("ok", keys, found)


def note(found: str, *keys: str, advice: str = "") -> Finding:
    """Something worth knowing."""
    return Finding("note", keys, found, advice)


def warning(found: str, *keys: str, advice: str) -> Finding:
    """Something that will probably spoil the result."""
    return Finding("warning", keys, found, advice)


def error(found: str, *keys: str, advice: str) -> Finding:
    """Something that stops the run or makes its result void."""
    return Finding("error", keys, found, advice)


def keys_in(text: str) -> list[str]:
    """The configuration keys that a message names, each once."""
    return list(dict.fromkeys(re.findall(r"\b[A-Z][A-Z0-9_]+(?:\.[A-Z0-9_]+)+\b", text)))


def listed(names: list[str], limit: int = 6) -> str:
    """The first `limit` names, and how many more there are."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def size_text(number: float) -> str:
    """A number of bytes for people: "512 MB", "1.5 GB" (powers of 1024)."""
    for unit in ("B", "kB", "MB"):
        if number < 999.5:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GB"
