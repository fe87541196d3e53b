"""SHA-256 of weight files: where one is known the content must have it, elsewhere it is said.

Known are a file `FILE.sha256` beside it (as `sha256sum` writes it), and eight hexadecimal digits at the end
of the name, as model zoos give them (`R-50-0a1b2c3d.pth`). Torch files in the zip format have checksums of
their own; for them only the file beside counts.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from maskrcnn_benchmark.utils.errors import CheckpointError
from maskrcnn_benchmark.utils.files import StrPath

SUFFIX = ".sha256"
_IN_NAME = re.compile(r"-(?=[0-9a-f]*[a-f])([0-9a-f]{8})\.")  # eight decimal digits are a date
_FULL = re.compile(r"\\?([0-9a-fA-F]{64})(?:\s|$)")
_MAX_SIDECAR = 1 << 16
_logger = logging.getLogger(__name__)


class KnownDigest:
    """What is known of the SHA-256 of a file: its first digits, and from where.

    Attributes:
        prefix: hexadecimal; empty when nothing is known.
    """

    def __init__(self, path: StrPath, *, in_name: bool) -> None:
        """Look for it; `in_name`: digits at the end of the name count.

        Raises:
            CheckpointError: the file beside it is unreadable or holds no SHA-256.
        """
        self._path = os.fspath(path)
        self._source = ""
        self.prefix = ""
        beside = sidecar(Path(self._path))
        if beside.is_file():
            self._source, self.prefix = str(beside), _read_sidecar(beside)
        elif in_name and (match := _IN_NAME.search(os.path.basename(self._path))):
            self._source, self.prefix = "its name", match[1]

    def compare(self, digest: str) -> None:
        """CheckpointError when `digest` does not begin with what is known; a log line when nothing is."""
        if not self.prefix:
            _logger.info(
                "weight file %s has no checksum to compare with; its SHA-256 is %s (written to %s, it is "
                "compared from then on)",
                self._path,
                digest,
                sidecar(Path(self._path)),
            )
        elif not digest.startswith(self.prefix):
            fix = "get it again" if self._source != "its name" else "get it again, or rename it"
            raise CheckpointError(
                f"weight file {self._path} is damaged or another one: its SHA-256 begins with "
                f"{digest[: len(self.prefix)]}, {self._source} says {self.prefix}; {fix}"
            )


def _read_sidecar(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_SIDECAR).decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {str(error)[:100]}; repair or remove it") from None
    match = _FULL.match(text)
    if match is None:
        raise CheckpointError(f"{path} does not begin with a SHA-256 of 64 digits; repair or remove it")
    return match[1].lower()


def sidecar(path: Path) -> Path:
    """Path of the file beside `path` that holds its SHA-256."""
    return path.with_name(f"{path.name}{SUFFIX}")


def sidecar_text(path: Path, digest: str) -> str:
    """Content of the file beside `path`, as `sha256sum` writes it."""
    return f"{digest}  {path.name}\n"


class Hasher:
    """SHA-256 of what it is fed, in a thread of its own."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._digest = hashlib.sha256()
        self._pool = pool

    def feed(self, block: memoryview) -> None:
        """Take the next bytes, which must not change until `hexdigest`."""
        self._pool.submit(self._digest.update, block)

    def hexdigest(self) -> str:
        """The digest of all that was fed."""
        return self._pool.submit(self._digest.hexdigest).result()


@contextmanager
def hasher() -> Iterator[Hasher]:
    """Context with a `Hasher`."""
    with ThreadPoolExecutor(1) as pool:
        yield Hasher(pool)
