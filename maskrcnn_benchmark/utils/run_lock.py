"""A run folder belongs to one run at a time."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.files import StrPath, make_folder, remove_leftovers, write_error

NAME = "run.lock"
_TAKEN = (errno.EACCES, errno.EAGAIN)
_logger = logging.getLogger(__name__)


@contextmanager
def claimed(folder: StrPath, below: Sequence[str] = ()) -> Iterator[None]:
    """Hold `folder` for the processes of this run; every one of them must enter and leave together.

    What a killed run left under temporary names is removed there and in the subfolders that match `below`.

    The lock of the main process ends with it, however it dies; loader workers do not inherit it. So a killed
    run can be started again at once, while two runs that would write over each other cannot be.

    Raises:
        ConfigError: on every process, when another run is at work in the folder.
        WriteError: the folder cannot be written.
    """
    held: list[tuple[Path, TextIO]] = []

    def take() -> None:
        _take(Path(folder) / NAME, held)
        left = remove_leftovers(folder, below)
        if left:
            _logger.info("removed %d unfinished files of a stopped run from %s", len(left), folder)

    comm.on_main(take)
    try:
        yield
    finally:
        for path, file in held:
            path.unlink(missing_ok=True)
            file.close()


def _take(path: Path, held: list[tuple[Path, TextIO]]) -> None:
    """Lock `path` and add it to `held`."""
    make_folder(path.parent)
    while True:
        try:
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  (closed when the run ends)
        except OSError as error:
            raise write_error(path, error) from None
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            if error.errno in _TAKEN:
                raise ConfigError(
                    f"{path.parent} is in use by {holder}: wait for that run or stop it, or choose another "
                    "OUTPUT_DIR"
                ) from None
            _logger.warning("%s cannot be locked (%s): do not start two runs there", path, error.strerror)
            return
        if _is_still(path, file):
            break
        file.close()  # its owner removed it in between
    held.append((path, file))
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
    except OSError as error:
        raise write_error(path, error) from None


def _is_still(path: Path, file: TextIO) -> bool:
    """Whether `path` still names the open `file`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
