"""Files that are written where they stand: no symbolic link leads a write out of its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Literal

from maskrcnn_benchmark.utils.errors import WriteError

# neither a link is followed nor a reader of a pipe waited for
_NO_FOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def check_link(path: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> None:
    """Refuse to write `path` when it is a symbolic link that leads out of `folder` (default: its own folder).

    Links above `path` are fine: the folder of a run may be a link.

    Raises:
        WriteError: naming the link and what it points to.
    """
    name = os.fspath(path)
    if not os.path.islink(name):
        return
    inside = os.path.realpath(os.path.dirname(name) or "." if folder is None else folder)
    target = os.path.realpath(name)
    if os.path.commonpath([inside, target]) != inside:
        raise WriteError(
            f"{name} is a symbolic link to {target}, out of its folder, and is not written through: remove "
            "the link, or choose another OUTPUT_DIR (the folder of a run itself may be a link)"
        )


def check_links_below(folder: Path, names: Sequence[str], below: Sequence[str]) -> None:
    """Apply `check_link` to the entries `names` of `folder` and, to any depth, to its subfolders `below`.

    `below` are patterns; a link in there may lead to any place inside `folder`.
    """
    for path in _links(folder, names, below):
        check_link(path, folder)


def _links(folder: Path, names: Sequence[str], below: Sequence[str]) -> Iterator[str]:
    """Paths of the symbolic links that `check_links_below` looks at."""
    tops = [path for pattern in below for path in sorted(folder.glob(pattern))]
    for path in (*(folder / name for name in names), *tops):
        if path.is_symlink():
            yield str(path)
    for top in tops:
        for parent, folders, files in os.walk(top):
            yield from (p for name in (*folders, *files) if os.path.islink(p := os.path.join(parent, name)))


def create_new(path: str | os.PathLike[str]) -> None:
    """Make an empty file with the permissions of an ordinary one; FileExistsError when the name is taken."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o666))


def open_in_place(path: str | os.PathLike[str], mode: Literal["a", "w"] = "a") -> TextIOWrapper:
    """Open a text file (UTF-8) to be appended to ("a") or written over ("w"), see `check_link`.

    Raises:
        WriteError: it is a link out of its folder. OSError: it cannot be opened.
    """
    check_link(path)
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if mode == "a" else os.O_TRUNC) | _NO_FOLLOW
    # a link inside the folder is resolved here; one that appears after the check is not followed
    handle = os.open(os.path.realpath(path), flags, 0o666)
    return open(handle, mode, encoding="utf-8")
