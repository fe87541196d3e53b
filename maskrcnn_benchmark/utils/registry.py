"""Registries: names in configuration files -> functions and classes that build the parts."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Generic, TypeVar

from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.text import shortened

T = TypeVar("T")


def close_matches(name: str, known: list[str], count: int = 3) -> list[str]:
    """Up to `count` entries of `known` that resemble `name` (case ignored), best first."""
    folded: dict[str, str] = {}
    for entry in known:
        folded.setdefault(entry.lower(), entry)
    return [folded[m] for m in difflib.get_close_matches(name.lower(), list(folded), n=count, cutoff=0.55)]


class Registry(Generic[T]):
    """Entries by name of one choice of the configuration.

    Args:
        name: kind of the entries, for messages ("backbone").
        home: file where entries are added, for messages ("modeling/backbones/build.py").
    """

    def __init__(self, name: str, home: str) -> None:
        self.name = name
        self.home = home
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers an object under `name`; ValueError when the name is in use."""

        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.name} {name!r} is registered twice (second time by {entry!r})")
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> T:
        """Entry of `name`; ConfigError with similar names when it is unknown."""
        if name in self._entries:
            return self._entries[name]
        near = close_matches(name, self.names())
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(self.names()) or 'none'}"
        raise ConfigError(
            f"unknown {self.name} {shortened(name)}; {hint} (entries are registered in {self.home})"
        )

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        """Registered names, sorted."""
        return sorted(self._entries)
