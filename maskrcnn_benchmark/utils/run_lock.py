"""A run folder belongs to one run at a time."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.errors import ConfigError, WriteError
from maskrcnn_benchmark.utils.files import StrPath, make_folder, remove_leftovers, write_error
from maskrcnn_benchmark.utils.links import check_links_below, open_in_place

LOCK_FILE = "run.lock"
_PATIENCE = 0.2  # seconds; a run that ends in this moment is no obstacle
# Files and folders that runs write into their folder; an OUTPUT_DIR may hold links of other names.
_WRITTEN = (
    LOCK_FILE, "log.txt", "config.yml", "labels.json", "state.json", "state.backup.json", "classes.json",
    "summary.json", "summary.csv", "summary.png", "metrics.jsonl", "last_checkpoint", "model_final.pth",
    "nonfinite.json", "distilled_logits.json", "ablation.json", "run.yaml",
)  # fmt: skip
_WRITTEN_BELOW = ("tensorboard", "distill")
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_logger = logging.getLogger(__name__)


@contextmanager
def lock_run_folder(folder: StrPath, below: Sequence[str] = ()) -> Iterator[None]:
    """Lock `folder` for the ranks of this run; all of them must enter and leave together.

    Files that a killed run left under temporary names are removed there and in the subfolders that match
    `below`.

    The lock of rank 0 ends with its process, however that dies; loader workers do not inherit it. So a
    killed run can be restarted at once, while two runs that would overwrite each other's files cannot start.

    Raises:
        ConfigError: on every rank, when another run is active in the folder.
        WriteError: the folder is not writable, or holds a symbolic link that would lead what a run writes out
            of it (see `links.check_link`).
    """
    locks: list[BaseFileLock] = []

    def take() -> None:
        check_links_below(Path(folder), _WRITTEN, (*_WRITTEN_BELOW, *below))
        lock = _lock(Path(folder) / LOCK_FILE)
        if lock is not None:
            locks.append(lock)
        left = remove_leftovers(folder, below)
        if left:
            _logger.info("removed %d unfinished files of a stopped run from %s", len(left), folder)

    comm.on_main(take)
    try:
        yield
    finally:
        for lock in locks:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def _lock(path: Path) -> BaseFileLock | None:
    """Lock `path` and write the holder into it; None, after a warning, where the file system has no locks."""
    make_folder(path.parent)
    if path.is_symlink():
        raise WriteError(
            f"{path} is a symbolic link, not the lock of a run: remove it, its target stays as it is"
        )
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise ConfigError(
            f"{path.parent} is in use by {_holder(path)}: wait for that run or stop it, or choose another "
            "OUTPUT_DIR"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise write_error(path, error) from None
        _logger.warning("%s cannot be locked (%s): do not start two runs there", path, error.strerror)
        return None
    try:
        with open_in_place(path, "w") as file:
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    except OSError as error:
        lock.release()
        raise write_error(path, error) from None
    except WriteError:
        lock.release()
        raise
    return lock


def _holder(path: Path) -> str:
    """Process and host that hold the lock, as they wrote them into it."""
    try:
        return path.read_text(encoding="utf-8").strip() or "another process"
    except OSError:
        return "another process"
