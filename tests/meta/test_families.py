"""A model family is named only where it lives: head, record, checks, weight files, operations."""

from __future__ import annotations

import re
from pathlib import Path

from maskrcnn_benchmark.config.models import families

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "maskrcnn_benchmark"
EXPECTED = ("solo", "aggmask", "centermask", "centernet")
"""Families that are to come."""

PLACES = (
    "config/checks/",
    "config/compat.py",
    "config/defaults.py",
    "config/models.py",
    "checkpoint/families/",
    "layers/",
    "modeling/heads/build.py",
)
"""Beside modeling/heads/<name>/, where families are named."""

PAPERS: dict[str, str] = {}
"""File elsewhere -> why it may name a family: docstrings that cite a paper."""


def _names() -> list[str]:
    return [*(family.name for family in families() if family.one_stage), *EXPECTED]


def _allowed(path: str) -> bool:
    parts = path.split("/")
    in_head = parts[:2] == ["modeling", "heads"] and parts[2] in _names()
    return in_head or path.startswith(PLACES) or path in PAPERS


def test_families_are_named_in_their_places_alone() -> None:
    pattern = re.compile(rf"(?<![a-z])({'|'.join(_names())})|({'|'.join(EXPECTED[1:])})", re.IGNORECASE)
    named = []
    for source in sorted(PACKAGE.rglob("*.py")):
        path = source.relative_to(PACKAGE).as_posix()
        if _allowed(path):
            continue
        for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), start=1):
            if pattern.search(line):
                named.append(f"{path}:{number}: {line.strip()}")
    assert not named, "read the record of config/models.py instead:\n" + "\n".join(named)


def test_exceptions_are_in_use() -> None:
    pattern = re.compile("|".join(_names()), re.IGNORECASE)
    idle = [path for path in PAPERS if not pattern.search((PACKAGE / path).read_text(encoding="utf-8"))]
    assert not idle
