"""Arrays of all processes brought together through files in a folder that every process sees."""

from __future__ import annotations

import secrets
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import TEMPORARY, StrPath, atomic_path, make_folder

_PREFIX = f".shards{TEMPORARY}"


@dataclass(frozen=True)
class Merged:
    """The arrays of all parts, one after another in the order of ranks, and of a rank's own parts.

    columns: by name. ranks: int64 (parts,), who wrote each part. lengths: by name int64 (parts,), rows of
    each part (0 where a part lacks the column).
    """

    columns: dict[str, np.ndarray]
    ranks: np.ndarray
    lengths: dict[str, np.ndarray]

    def rank_of_rows(self, name: str) -> np.ndarray:
        """int64 (rows of column `name`,): the rank that wrote each row."""
        return np.repeat(self.ranks, self.lengths[name])


class Part:
    """What one process wrote at once; its arrays are read one at a time.

    rank: of the process. rows: length of every array by name.
    """

    def __init__(self, rank: int, path: Path) -> None:
        """Read the shapes. Raises DataError when the file is not there or not readable."""
        self.rank = rank
        self._path = path
        with self._readable():
            self._headers = dict(_headers(path))
        self.rows = {name: shape[0] for name, (shape, _) in self._headers.items()}

    def empty(self, name: str, rows: int) -> np.ndarray:
        """An array (rows, ...) for rows of array `name`, not filled."""
        shape, dtype = self._headers[name]
        return np.empty((rows, *shape[1:]), dtype)

    def read(self, name: str) -> np.ndarray:
        """One array. Raises DataError when it is not there or not readable."""
        with self._readable(), np.load(self._path, allow_pickle=False) as arrays:
            return arrays[name]

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{self._path.parent}: results of another process cannot be read ({error}); OUTPUT_DIR must "
                "be one folder that every machine of the run sees, on a disk with free space"
            ) from None


class ShardExchange:
    """One exchange: every process opens it, writes any number of parts, and calls `merge` or `read`.

    Parts go to a folder with a random name that process 0 gives out, so that files of an earlier run, or of
    a process of it that was killed, never mix in; leftovers are removed when an exchange opens and the
    exchange's own files when it ends. Nothing but file counts travels through the process group.
    """

    def __init__(self, folder: StrPath) -> None:
        """Open an exchange below `folder`; every process must call this.

        Raises DataError on every process when process 0 cannot make the folder.
        """
        self._base = Path(folder)
        self._parts = 0
        self._folder = self._base / comm.on_main(self._make_room)

    def _make_room(self) -> str:
        make_folder(self._base)
        for leftover in self._base.glob(f"{_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        name = f"{_PREFIX}{secrets.token_hex(8)}"
        make_folder(self._base / name)
        return name

    def _path(self, rank: int, part: int) -> Path:
        return self._folder / f"{rank:05d}_{part:05d}.npz"

    def write(self, columns: Mapping[str, np.ndarray]) -> None:
        """Write this process's next part: arrays by name, in their shapes but for the first axis alike."""
        with atomic_path(self._path(comm.get_rank(), self._parts)) as path:
            np.savez(path, **columns)  # type: ignore[arg-type]  # numpy's stub takes the names for options
        self._parts += 1

    def read(self, work: Callable[[list[Part]], None]) -> None:
        """Do `work` with all parts, in the order of ranks, on process 0; every process must call this once.

        The files are gone afterwards. What `work` raises is raised on every process, and so is DataError
        when a part is not there or not readable.
        """
        counts = comm.all_gather_objects(self._parts)
        comm.on_main(lambda: self._work(work, counts))

    def _work(self, work: Callable[[list[Part]], None], counts: Sequence[int]) -> None:
        try:
            work([Part(rank, self._path(rank, i)) for rank, n in enumerate(counts) for i in range(n)])
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def merge(self) -> Merged | None:
        """All parts on process 0, None on the others; every process must call this once, at the end.

        Process 0 holds the result and one array of a part at a time. Raises DataError on every process when a
        part is not there or not readable.
        """
        found: list[Merged] = []
        self.read(lambda parts: found.append(_joined(parts)))
        return found[0] if found else None


def _joined(parts: Sequence[Part]) -> Merged:
    """The arrays of all parts one after another."""
    columns, lengths = {}, {}
    for name in dict.fromkeys(name for part in parts for name in part.rows):
        lengths[name] = np.array([part.rows.get(name, 0) for part in parts], np.int64)
        first = next(part for part in parts if name in part.rows)
        columns[name] = first.empty(name, int(lengths[name].sum()))
        start = 0
        for part in parts:
            if name in part.rows:
                columns[name][start : start + part.rows[name]] = part.read(name)
                start += part.rows[name]
    return Merged(columns, np.array([part.rank for part in parts], np.int64), lengths)


def _headers(path: Path) -> Iterator[tuple[str, tuple[tuple[int, ...], np.dtype]]]:
    """Name, shape and dtype of the arrays of an npz file, without reading them."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            yield member.removesuffix(".npy"), (shape, dtype)
