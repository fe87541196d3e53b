"""Finds out what a reference folder holds and runs every check that fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checks.checker import FAIL, OK, SKIPPED, UNSUPPORTED, Check, Checker
from checks.core import kinds as core_kinds
from checks.files import FileKind
from checks.lst import kinds as lst_kinds
from checks.sipmask import kinds as sipmask_kinds
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json

SYSTEMS: dict[str, tuple[FileKind, ...]] = {
    "core": core_kinds.KINDS,
    "lst": lst_kinds.KINDS,
    "sipmask": sipmask_kinds.KINDS,
}
"""Every system with the kinds of its files; a new system is a folder and a row."""


@dataclass(frozen=True)
class Job:
    """A file and the kind that checks it; a file that no kind claims because it cannot be read has none."""

    name: str
    path: Path
    kind: FileKind | None

    def run(self, checker: Checker) -> None:
        """Make the checks; an exception becomes a failed one."""
        try:
            if self.kind is None:
                read_json(self.path, what="reference file")
            else:
                self.kind.check(self.path, checker)
        except Exception as error:
            checker.fail(self.name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def run_folder(folder: Path, *, fast: bool = False, only: str = "") -> Iterator[Check]:
    """Checks of one folder as they are done.

    `fast` leaves out the one layer that takes gigabytes; `only` keeps jobs whose name contains it. Raises
    DataError when the folder does not exist or holds nothing known.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder of the reference files")
    jobs = find_jobs(folder)
    if not jobs:
        raise DataError(
            f"{folder} holds no reference file of a known format "
            "(components.json, *_eval.json, splits.json, ...)"
        )
    for job in jobs:
        if only in job.name:
            checker = Checker(fast=fast)
            job.run(checker)
            yield from checker.checks


def find_jobs(folder: Path) -> list[Job]:
    """Everything that the files of `folder` allow to check, system by system and kind by kind."""
    contents = {path: _content(path) for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")])}
    jobs = [
        Job(kind.job.format(stem=path.stem), path, kind)
        for kinds in SYSTEMS.values()
        for kind in kinds
        for path, content in contents.items()
        if kind.recognises(folder, path, content)
    ]
    claimed = {job.path for job in jobs}
    unreadable = [path for path, content in contents.items() if content is None and path.parent == folder]
    return jobs + [Job(path.stem, path, None) for path in unreadable if path not in claimed]


def _content(path: Path) -> Any:
    """The content of a JSON file, None where it cannot be read."""
    try:
        return read_json(path, what="reference file")
    except DataError:
        return None


def summary(checks: list[Check]) -> str:
    """One line with the number of checks of every verdict."""
    counts = {status: sum(c.status == status for c in checks) for status in (OK, FAIL, UNSUPPORTED, SKIPPED)}
    return f"{len(checks)} checks: " + ", ".join(
        f"{count} {status}" for status, count in counts.items() if count
    )


def passed(checks: list[Check]) -> bool:
    """Whether something was checked and nothing failed."""
    return any(c.status == OK for c in checks) and all(c.status != FAIL for c in checks)
