"""Atomic files: everything is written to a temporary name and renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from maskrcnn_benchmark.utils.errors import DataError, UsageError, WriteError
from maskrcnn_benchmark.utils.links import check_link, create_new, open_in_place
from maskrcnn_benchmark.utils.text import shortened

StrPath = str | os.PathLike[str]

# Part of the name of all temporary files and folders, by which those of a killed run are recognised.
TEMPORARY = ".tmp-"
# Added to the name of a damaged file that is kept.
DAMAGED = ".damaged"
_LONGEST_STEM = 40  # of a temporary name, which must not be longer than a file system allows
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_BLOCKED = (errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ELOOP, errno.ENXIO)
_BROKEN = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)


def expand_path(path: str) -> str:
    """Replace `~`, `~user`, `$NAME` and `${NAME}` at the front and inside of a path by what they stand for.

    Raises:
        UsageError: there is no such user or variable, and no file of that very name.
    """
    if not path.startswith("~") and "$" not in path:
        return path
    expanded = os.path.expandvars(os.path.expanduser(path))
    unset = [name for name in re.findall(r"\$\{?(\w+)", path) if name not in os.environ]
    unknown = expanded.startswith("~") and path.startswith("~")
    if (unset or unknown) and not os.path.lexists(expanded):
        what = (
            f"the variable {unset[0]} is not set" if unset else f"there is no user {path[1:].split('/')[0]}"
        )
        raise UsageError(f"path {shortened(path)}: {what}; write the path out")
    return expanded


def path_argument(text: str) -> Path:
    """Type of command line arguments that are paths: expands them (`expand_path`)."""
    return Path(expand_path(text))


def write_error(path: StrPath, error: OSError) -> WriteError:
    """One-line error for a file that could not be written, with the reason and what to do."""
    if error.errno in _FORBIDDEN:
        advice = "make its folder writable, or choose another OUTPUT_DIR"
    elif error.errno in _BLOCKED:
        advice = "move away what is in its place and give the same command again"
    elif error.errno in _BROKEN:
        advice = "check the disk and give the same command again"
    else:
        advice = "free some space (or raise the quota) and give the same command again"
    reason = error.strerror or str(error)
    return WriteError(
        f"{os.fspath(path)} cannot be written: {reason}; nothing saved before is lost: {advice}"
    )


def _is_write_failure(error: OSError) -> bool:
    """Whether an error inside `atomic_path` concerns the file; numpy and Pillow set no errno."""
    return error.errno in (*_FULL, *_FORBIDDEN, *_BROKEN) or (type(error) is OSError and error.errno is None)


def make_folder(path: StrPath) -> Path:
    """Make a folder and its parents; an existing one is fine.

    Raises:
        DataError: it cannot be made (no permission, a file of that name); names the folder and the reason.
        WriteError: the disk is full.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in _FULL:
            raise write_error(folder, error) from None
        raise DataError(
            f"folder {folder} cannot be made: {error.strerror}; choose another folder (OUTPUT_DIR for a run)"
        ) from None
    return folder


@contextmanager
def atomic_path(path: StrPath) -> Iterator[Path]:
    """Context with a temporary path in the folder of `path`, renamed onto `path` when the block succeeds.

    The folder is created. The temporary name keeps the suffix of `path`. Data and name have reached the
    disk when the block is left. If it raises, the temporary file is removed and an older `path` stays as
    it was; a process that is killed inside leaves the temporary file for `remove_leftovers`.

    Raises:
        WriteError: the disk is full, fails, or does not allow it; or `path` is a symbolic link that leads out
            of its folder.
    """
    target = Path(path)
    make_folder(target.parent)
    check_link(target)
    temporary: Path | None = None
    try:
        name = f".{target.stem[:_LONGEST_STEM]}{TEMPORARY}{secrets.token_hex(8)}{target.suffix}"
        create_new(target.with_name(name))
        temporary = target.with_name(name)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        _rename(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        if not _is_write_failure(error):
            raise
        raise write_error(target, error) from None
    finally:
        if temporary is not None:
            _try_unlink(temporary)


def _rename(temporary: Path, target: Path) -> None:
    """Rename a finished file onto `target`; WriteError when a folder is in its place."""
    try:
        os.replace(temporary, target)
    except OSError as error:
        if error.errno not in _BLOCKED:
            raise
        raise write_error(target, error) from None


def _try_unlink(path: Path) -> None:
    """Remove a file; an error here must not hide the one that is being raised."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def _sync_folder(folder: Path) -> None:
    """Flush the names in `folder` to disk, so that renames survive a power cut in their order."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: StrPath, below: Sequence[str] = ()) -> list[Path]:
    """Remove temporary files of killed writers; returns the removed paths.

    Searches `folder` itself and, to any depth, its subfolders that match the patterns `below`. No process may
    be writing there.
    """
    top = Path(folder)
    if not top.is_dir():
        return []
    pattern = f".*{TEMPORARY}*"
    leftovers = list(top.glob(pattern))
    for name in below:
        leftovers += [path for inner in top.glob(name) for path in inner.rglob(pattern)]
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return leftovers


def set_aside(path: StrPath) -> Path:
    """Rename a damaged file or folder to NAME.damaged (.damaged.2, ... when that exists).

    Returns its new path.

    Raises:
        WriteError: the folder does not allow it.
    """
    source = Path(path)
    target, number = source.with_name(source.name + DAMAGED), 1
    while os.path.lexists(target):
        number += 1
        target = source.with_name(f"{source.name}{DAMAGED}.{number}")
    try:
        os.rename(source, target)
    except OSError as error:
        raise write_error(source, error) from None
    return target


def write_text(path: StrPath, text: str) -> None:
    """Write `text` as UTF-8 atomically (see `atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: StrPath, obj: Any, indent: int | None = None) -> None:
    """Write `obj` as JSON atomically (see `atomic_path`)."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(obj, file, indent=indent)
        if indent is not None:
            file.write("\n")


def write_json_list(path: StrPath, items: Iterable[Any], at_once: int = 2000) -> None:
    """Write a JSON list atomically (see `atomic_path`), with `at_once` items in memory at a time."""
    remaining = iter(items)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        separator = "["
        while chunk := list(islice(remaining, at_once)):
            file.write(separator + json.dumps(chunk)[1:-1])
            separator = ", "
        file.write("[]" if separator == "[" else "]")


@contextmanager
def new_array(
    path: StrPath, shape: Sequence[int], dtype: DTypeLike
) -> Iterator[Callable[[int, np.ndarray], None]]:
    """Context that writes a .npy file of zeros atomically (see `atomic_path`), to be filled piece by piece.

    The block gets a function `put(position, values)` that writes the elements of an array, in C order, from a
    flat position on. Not a memory map, in which a full disk ends the process, nor `np.save`, which does not
    notice one.
    """
    element = np.dtype(dtype)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        layout = {"descr": element.str, "fortran_order": False, "shape": tuple(map(int, shape))}
        np.lib.format.write_array_header_1_0(file, layout)
        start = file.tell()
        file.truncate(start + math.prod(shape) * element.itemsize)

        def put(position: int, values: np.ndarray) -> None:
            file.seek(start + position * element.itemsize)
            file.write(np.require(values, element, "C").data)

        yield put


def write_array(path: StrPath, array: np.ndarray) -> None:
    """Write `array` as .npy atomically (see `new_array`)."""
    with new_array(path, array.shape, array.dtype) as put:
        put(0, array)


def read_json(path: StrPath, what: str = "file") -> Any:
    """Read a JSON file; `what` names its kind in messages ("annotation file"). A byte order mark is skipped.

    Raises:
        DataError: the file is missing, unreadable or no JSON (or nested too deeply, or with a number of
            thousands of digits); names the path and, for invalid JSON, the line.
    """
    text = read_text(path, what)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise json_error(f"{what} {os.fspath(path)}", error) from None


def read_text(path: StrPath, what: str = "file") -> str:
    """Read a text file in UTF-8, with or without a byte order mark; `what` names its kind in messages.

    Raises:
        DataError: the file is missing, unreadable or not UTF-8; names the path.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except FileNotFoundError:
        raise DataError(f"{what} {os.fspath(path)} does not exist") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{what} {os.fspath(path)} is not UTF-8 text: byte {error.start}") from None
    except OSError as error:
        raise DataError(f"{what} {os.fspath(path)} cannot be read: {error.strerror}") from None


def json_error(where: str, error: Exception) -> DataError:
    """One-line error for text of `where` that Python's JSON reader refused with `error`."""
    if isinstance(error, json.JSONDecodeError):
        return DataError(
            f"{where} is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        )
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).split(";")[0]
    return DataError(f"{where} is not usable JSON: {reason}")


def append_jsonl(path: StrPath, obj: Any) -> None:
    """Append `obj` as one line of JSON in a single write; WriteError when that fails."""
    make_folder(Path(path).parent)
    line = json.dumps(obj) + "\n"
    try:
        with open_in_place(path) as file:
            file.write(line)
    except OSError as error:
        raise write_error(path, error) from None


def sha256_file(path: StrPath) -> str:
    """Hexadecimal SHA-256 of the content of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(obj: Any) -> str:
    """Hexadecimal SHA-256 of `obj` as JSON with sorted keys, equal for equal values."""
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
