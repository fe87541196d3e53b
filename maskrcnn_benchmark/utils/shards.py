"""Gather arrays of all ranks through shard files in a folder that all of them see."""

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
    """Arrays of all parts, concatenated in the order of ranks and, per rank, of writing.

    Attributes:
        columns: arrays by name. ranks: (parts,) int64, rank that wrote each part.
        lengths: by name (parts,) int64, rows of each part (0 where a part lacks the column).
    """

    columns: dict[str, np.ndarray]
    ranks: np.ndarray
    lengths: dict[str, np.ndarray]

    def rank_of_rows(self, name: str) -> np.ndarray:
        """Rank that wrote each row of column `name`: (rows,) int64."""
        return np.repeat(self.ranks, self.lengths[name])


class Part:
    """One shard file; its arrays are read one at a time.

    Attributes:
        rank: the rank that wrote it. rows: length of each array by name.
    """

    def __init__(self, rank: int, path: Path) -> None:
        """Read the shapes; DataError when the file is missing or unreadable."""
        self.rank = rank
        self._path = path
        with self._readable():
            self._headers = dict(_headers(path))
        self.rows = {name: shape[0] for name, (shape, _) in self._headers.items()}

    def empty(self, name: str, rows: int) -> np.ndarray:
        """Uninitialised array (rows, ...) for rows of array `name`."""
        shape, dtype = self._headers[name]
        return np.empty((rows, *shape[1:]), dtype)

    def read(self, name: str) -> np.ndarray:
        """Read one array; DataError when it is missing or unreadable."""
        with self._readable(), np.load(self._path, allow_pickle=False) as arrays:
            return arrays[name]

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{self._path.parent}: results of another rank cannot be read ({error}); OUTPUT_DIR must "
                "be a folder that all hosts of the run share, on a disk with free space"
            ) from None


class ShardExchange:
    """One exchange: each rank opens it, writes any number of parts, and calls `merge` or `read`.

    Parts go to a folder with a random name from rank 0, so that files of an earlier run, or of a killed
    process, never mix in. Leftovers are removed when an exchange opens, its own files when it ends. Only file
    counts are sent through the process group.
    """

    def __init__(self, folder: StrPath) -> None:
        """Open an exchange below `folder`; collective over ranks.

        Raises DataError on all ranks when rank 0 cannot make the folder.
        """
        self._base = Path(folder)
        self._parts = 0
        self._folder = self._base / comm.on_main(self._make_folder)

    def _make_folder(self) -> str:
        make_folder(self._base)
        for leftover in self._base.glob(f"{_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        name = f"{_PREFIX}{secrets.token_hex(8)}"
        make_folder(self._base / name)
        return name

    def _path(self, rank: int, part: int) -> Path:
        return self._folder / f"{rank:05d}_{part:05d}.npz"

    def write(self, columns: Mapping[str, np.ndarray]) -> None:
        """Write the next part of this rank: arrays by name, of one shape per name but for the first axis."""
        with atomic_path(self._path(comm.get_rank(), self._parts)) as path:
            np.savez(path, **columns)  # type: ignore[arg-type]  # numpy's stub takes the names for options
        self._parts += 1

    def read(self, action: Callable[[list[Part]], None]) -> None:
        """Call `action` with all parts, in the order of ranks, on rank 0; collective, once per exchange.

        The files are removed afterwards. Errors of `action` are raised on all ranks, and so is DataError
        when a part is missing or unreadable.
        """
        counts = comm.all_gather_objects(self._parts)
        comm.on_main(lambda: self._read(action, counts))

    def _read(self, action: Callable[[list[Part]], None], counts: Sequence[int]) -> None:
        try:
            action([Part(rank, self._path(rank, i)) for rank, n in enumerate(counts) for i in range(n)])
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def merge(self) -> Merged | None:
        """Concatenate all parts on rank 0, None on other ranks; collective, once at the end.

        Rank 0 holds the result and one array of a part at a time. Raises DataError on all ranks when a part
        is missing or unreadable.
        """
        merged: list[Merged] = []
        self.read(lambda parts: merged.append(_concatenate(parts)))
        return merged[0] if merged else None


def _concatenate(parts: Sequence[Part]) -> Merged:
    """Concatenate the arrays of all parts by name."""
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
