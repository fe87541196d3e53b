"""What the files of a reference folder are, and where a file that is missing beside them is looked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checks.checker import Checker

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CONFIGS = Path(__file__).resolve().parents[3] / "configs"


@dataclass(frozen=True)
class FileKind:
    """One kind of reference file of a system.

    `pattern` is a glob below the folder; a file of that name is of this kind when its content has all `keys`
    at the top level (none given: the name decides) and the files `beside` it are there. `check` takes the
    path and the checker; `job` names the job, `{stem}` being the stem of the file.
    """

    check: Callable[[Path, Checker], None]
    pattern: str = "*.json"
    keys: frozenset[str] = frozenset()
    beside: tuple[str, ...] = ()
    job: str = "{stem}"

    def recognises(self, folder: Path, path: Path, content: Any) -> bool:
        """Whether `path` below `folder` is such a file; `content` is None for one that cannot be read."""
        if not path.relative_to(folder).match(self.pattern) or len(path.relative_to(folder).parts) != len(
            Path(self.pattern).parts
        ):
            return False
        if self.keys and not (isinstance(content, dict) and self.keys <= set(content)):
            return False
        return all((folder / name).exists() for name in self.beside)


def side_file(folder: Path, name: str, system: str) -> Path | None:
    """`name` below `folder`, else among this project's references of `system`; None where neither has it."""
    return next((path for path in (folder / name, GOLDEN / system / name) if path.is_file()), None)


def required_side_file(folder: Path, name: str, system: str) -> Path:
    """`side_file`, or FileNotFoundError that says where the file was looked for."""
    path = side_file(folder, name, system)
    if path is None:
        raise FileNotFoundError(f"{name} is neither in {folder} nor in {GOLDEN / system}")
    return path
