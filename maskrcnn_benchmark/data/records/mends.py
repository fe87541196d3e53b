"""Records that were mended while they were read, counted by kind with the first ids."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

logger = logging.getLogger(__name__)
EXAMPLES = 4


class Mends:
    """Counts of mended records by what was mended, for example "area missing, computed from the mask"."""

    def __init__(self, stored: Mapping[str, Sequence[Any]] | None = None) -> None:
        """Start empty, or from what `stored` returned."""
        self._kinds: dict[str, tuple[int, list[Any]]] = {
            kind: (int(count), list(ids)) for kind, (count, ids) in (stored or {}).items()
        }

    def add(self, kind: str, record_id: Any) -> None:
        """Count a mended record."""
        self.add_all(kind, [record_id])

    def add_all(self, kind: str, record_ids: Sequence[Any]) -> None:
        """Count several mended records."""
        if len(record_ids):
            count, ids = self._kinds.get(kind, (0, []))
            more = [int(i) if isinstance(i, int) else str(i) for i in record_ids[: EXAMPLES - len(ids)]]
            self._kinds[kind] = (count + len(record_ids), ids + more)

    def __len__(self) -> int:
        """Number of kinds."""
        return len(self._kinds)

    def lines(self) -> list[str]:
        """One line per kind: "area missing or null, ...: 3 (1, 2, 3)"."""
        return [
            f"{kind}: {count} ({', '.join(map(str, ids))}{', ...' if count > len(ids) else ''})"
            for kind, (count, ids) in self._kinds.items()
        ]

    def stored(self) -> dict[str, list[Any]]:
        """The counts as JSON holds them."""
        return {kind: [count, ids] for kind, (count, ids) in self._kinds.items()}

    def log(self, where: str) -> None:
        """Warn of all kinds, once per `where` ("annotation file train.json") and count."""
        for line in self.lines():
            warn_once(f"{where}: {line}")


@cache
def warn_once(line: str) -> None:
    """Log a warning that was not logged before."""
    logger.warning("%s", line)
