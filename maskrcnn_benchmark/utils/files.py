"""Files that are either whole or absent: everything is written to a temporary name and renamed."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import DataError

StrPath = str | os.PathLike[str]


def _new_file_mode() -> int:
    """Permission bits that an ordinary new file gets (``mkstemp`` makes private ones)."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def make_folder(path: StrPath) -> Path:
    """Make a folder and those above it; one that is there already is fine.

    Raises:
        DataError: it cannot be made (no permission, a file in its place); names the folder and the reason.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"folder {folder} cannot be made: {error.strerror}; choose another folder (OUTPUT_DIR for a run)"
        ) from None
    return folder


@contextmanager
def atomic_path(path: StrPath) -> Iterator[Path]:
    """Give a temporary path in the folder of ``path``; rename it onto ``path`` when the block succeeds.

    The folder is created. The temporary name keeps the suffix of ``path``. Data reaches the disk before
    the rename. If the block raises, the temporary file is removed and an older ``path`` stays as it was.
    """
    target = Path(path)
    make_folder(target.parent)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(_new_file_mode())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: StrPath, text: str) -> None:
    """Write ``text`` as UTF-8 in one step (see ``atomic_path``)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: StrPath, obj: Any, indent: int | None = None) -> None:
    """Write ``obj`` as JSON in one step (see ``atomic_path``)."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(obj, file, indent=indent)
        if indent is not None:
            file.write("\n")


def read_json(path: StrPath, what: str = "file") -> Any:
    """Read a JSON file; ``what`` says in messages what the file is for ("annotation file").

    Raises:
        DataError: the file is missing, unreadable or no JSON; names the path and, for bad JSON, the line.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise DataError(f"{what} {os.fspath(path)} does not exist") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{what} {os.fspath(path)} is not valid JSON: {error.msg} in line {error.lineno}, "
            f"column {error.colno}"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{what} {os.fspath(path)} is not UTF-8 text: byte {error.start}") from None
    except OSError as error:
        raise DataError(f"{what} {os.fspath(path)} cannot be read: {error.strerror}") from None


def append_jsonl(path: StrPath, obj: Any) -> None:
    """Append ``obj`` as one line of JSON; the line goes out in a single write."""
    make_folder(Path(path).parent)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(obj) + "\n")


def sha256_file(path: StrPath) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(obj: Any) -> str:
    """Hexadecimal SHA-256 of ``obj`` as JSON with sorted keys, so that equal values give equal hashes."""
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
