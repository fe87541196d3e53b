"""Arrays of all processes brought together through files in a folder that every process sees."""

from __future__ import annotations

import secrets
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import comm
from .errors import DataError
from .files import TEMPORARY, StrPath, atomic_path, make_folder

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
        """int64 (rows of column ``name``,): the rank that wrote each row."""
        return np.repeat(self.ranks, self.lengths[name])


class ShardExchange:
    """One exchange: every process opens it, writes any number of parts, and calls ``merge``.

    Parts go to a folder with a random name that process 0 gives out, so that files of an earlier run, or of
    a process of it that was killed, never mix in; leftovers are removed when an exchange opens and the
    exchange's own files when it ends. Nothing but file counts travels through the process group.
    """

    def __init__(self, folder: StrPath) -> None:
        """Open an exchange below ``folder``; every process must call this.

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

    def merge(self) -> Merged | None:
        """All parts on process 0, None on the others; every process must call this once, at the end.

        Process 0 holds the result and one part at a time. Raises DataError on every process when a part is
        not there or not readable.
        """
        counts = comm.all_gather_objects(self._parts)
        found: list[Merged] = []
        comm.on_main(lambda: found.append(self._read(counts)))
        return found[0] if found else None

    def _read(self, counts: list[int]) -> Merged:
        names = [(rank, self._path(rank, part)) for rank, n in enumerate(counts) for part in range(n)]
        try:
            headers = [dict(_headers(path)) for _, path in names]
            lengths = {
                name: np.array([header[name][0][0] if name in header else 0 for header in headers], np.int64)
                for name in dict.fromkeys(name for header in headers for name in header)
            }
            columns: dict[str, np.ndarray] = {}
            for name, rows in lengths.items():
                shape, dtype = next(header[name] for header in headers if name in header)
                columns[name] = np.empty((int(rows.sum()), *shape[1:]), dtype)
            for number, (_, path) in enumerate(names):
                with np.load(path, allow_pickle=False) as part:
                    for name in part.files:
                        start = int(lengths[name][:number].sum())
                        columns[name][start : start + lengths[name][number]] = part[name]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{self._folder}: results of another process cannot be read ({error}); OUTPUT_DIR must be "
                "one folder that every machine of the run sees, on a disk with free space"
            ) from None
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        return Merged(columns, np.array([rank for rank, _ in names], np.int64), lengths)


def _headers(path: Path) -> Iterator[tuple[str, tuple[tuple[int, ...], np.dtype]]]:
    """Name, shape and dtype of the arrays of an npz file, without reading them."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            yield member.removesuffix(".npy"), (shape, dtype)
