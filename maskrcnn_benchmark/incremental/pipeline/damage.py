"""Files of a run that are not what a stage wrote: how they are recognised, named and set aside."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.incremental.pipeline.run_state import RunState
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import set_aside, sha256_file
from maskrcnn_benchmark.utils.progress import Progress

logger = logging.getLogger(__name__)
_SHOW_PROGRESS_FROM = 2**30  # bytes


@dataclass(frozen=True)
class Damage:
    """A file that differs from its record.

    Attributes:
        stage: name under which it is recorded. path: the file. problem: what is wrong, in words.
        side: no later stage reads it.
    """

    stage: str
    path: Path
    problem: str
    side: bool


def find_damage(state: RunState, names: Iterable[str]) -> list[Damage]:
    """Compare the files recorded under `names` with their sizes and hashes; every file is read."""
    files = [(name, file, record) for name in names for file, record in state.outputs(name).items()]
    size = sum(record["size"] for _, _, record in files)
    progress = None
    if size >= _SHOW_PROGRESS_FROM:
        progress = Progress(size // 2**20, f"checking the files of {state.folder} (MiB)", logger)
    damages = []
    for name, file, record in files:
        problem = _problem(state.folder / file, record)
        if problem:
            damages.append(Damage(name, state.folder / file, problem, record["side"]))
        if progress is not None:
            progress.update(record["size"] // 2**20)
    if progress is not None:
        progress.close()
    return damages


def require_intact(state: RunState, paths: Iterable[Path]) -> None:
    """Raise DataError naming a file of `paths` that differs from its record; nothing is changed."""
    for path in paths:
        damage = file_damage(state, path)
        if damage is not None:
            raise DataError(
                f"{path} is damaged: it {damage.problem}; give the training command of its run again, which "
                f"writes it again ({damage.stage})"
            )


def file_damage(state: RunState, path: Path, *, quick: bool = False) -> Damage | None:
    """Damage of one file; None when it is as recorded, or nothing is recorded of it.

    `quick`: do not read a file whose size and modification time are those of the time when it was hashed.
    """
    name = state.producer(path)
    if not name:
        return None
    record = state.outputs(name)[path.relative_to(state.folder).as_posix()]
    if quick and state.cached_hash(path) == record["sha256"]:
        return None
    problem = _problem(path, record)
    return Damage(name, path, problem, record["side"]) if problem else None


def _problem(path: Path, record: dict[str, Any]) -> str:
    """What is wrong with a file, as the end of a sentence; "" when it is as recorded."""
    if record.get("weights") == "":
        return "cannot be read"  # it was recorded so, in a run that an earlier version began
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "is no file"
        if status.st_size != record["size"]:
            return f"has {status.st_size} bytes, {record['size']} were written"
        same = sha256_file(path) == record["sha256"]
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if same else "has another content than was written (SHA-256)"


def set_aside_in(folder: Path, path: Path) -> Path | None:
    """Rename a damaged file of run folder `folder` to NAME.damaged (see `set_aside`); returns its new path.

    A file in the place of a folder above `path` is renamed instead. None: there is nothing to rename.
    """
    blocked = [
        p for p in path.parents if p.is_relative_to(folder) and os.path.lexists(p) and not os.path.isdir(p)
    ]
    path = blocked[-1] if blocked else path
    return set_aside(path) if os.path.lexists(path) else None
