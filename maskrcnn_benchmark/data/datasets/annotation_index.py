"""A cached index of a large annotation file: the byte span of every record, and the columns of all records.

The file is mapped into memory, so that all processes share one copy, and a record is decoded when it is
accessed. The index (about 110 bytes per annotation) lies in a cache folder and is used again while size and
modification time of the file do not change.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskrcnn_benchmark.data.records.annotation import mended_record
from maskrcnn_benchmark.data.records.builder import ColumnBuilder
from maskrcnn_benchmark.data.records.columns import AnnotationColumns, Record
from maskrcnn_benchmark.data.records.mends import Mends
from maskrcnn_benchmark.utils.errors import DataError, WriteError
from maskrcnn_benchmark.utils.files import read_json, write_json
from maskrcnn_benchmark.utils.native import load_ops

logger = logging.getLogger(__name__)
VERSION = 4
CACHE_VARIABLE = "MRB_CACHE_DIR"
_SPANS = ("starts", "ends")
# Columns of `scan_annotations` in their order (csrc/ops.cpp).
_SCANNED = (
    "ids",
    "image_ids",
    "category_ids",
    "boxes",
    "areas",
    "crowd",
    "ignore",
    "segmentation",
    "extents",
    "visible",
    "unusual",
    "starts",
    "ends",
)


@dataclass(frozen=True)
class FileIndex:
    """Byte spans in a file: of every annotation (`starts`, `ends`, int64 (N,)) and of the other top keys.

    `mends`: what was mended in annotations, images and categories; `mended_lists`: in one of the latter two.
    `suspicions`: see `boxes.suspicions`.
    """

    columns: AnnotationColumns
    starts: np.ndarray
    ends: np.ndarray
    sections: dict[str, tuple[int, int]]
    mends: Mends
    mended_lists: bool
    suspicions: list[str]


class MappedFile:
    """A file mapped into memory; pickled as its path, so that a worker maps it again."""

    def __init__(self, path: str) -> None:
        """Map `path`; DataError when it cannot be read."""
        self.path = path
        try:
            with open(path, "rb") as file:
                # never written to: a private copy, as torch warns of memory that cannot be written
                self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise DataError(f"annotation file {path} cannot be read: {error}") from None

    def __reduce__(self) -> tuple[type[MappedFile], tuple[str]]:
        return MappedFile, (self.path,)

    @property
    def array(self) -> np.ndarray:
        """The bytes of the file, uint8 (N,), not copied."""
        return np.frombuffer(self.bytes, np.uint8)

    def parse(self, start: int, end: int) -> Any:
        """Parse the JSON value of a span of bytes; DataError when it is none."""
        try:
            return json.loads(self.bytes[start:end])
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"annotation file {self.path}: the text at byte {start} is not valid JSON ({error}); if the "
                "file was changed while it was in use, start again"
            ) from None


class FileRecords(Sequence[Record]):
    """The annotation records of an indexed file, decoded one by one when they are accessed.

    With `columns`, mended records are as these say; without, as in the file.
    """

    def __init__(
        self,
        file: MappedFile,
        starts: np.ndarray,
        ends: np.ndarray,
        columns: AnnotationColumns | None = None,
    ) -> None:
        self._file = file
        self._starts = starts
        self._ends = ends
        self._columns = columns

    def __len__(self) -> int:
        """Number of annotations."""
        return len(self._starts)

    def __getitem__(self, row: Any) -> Any:
        """The record (of a slice: the list of records) at an index in file order."""
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        record = self._file.parse(int(self._starts[row]), int(self._ends[row]))
        return record if self._columns is None else mended_record(record, self._columns, row)

    def text(self, row: int) -> bytes:
        """The bytes of the record in the file."""
        return self._file.bytes[int(self._starts[row]) : int(self._ends[row])]

    def texts(self, rows: Sequence[int]) -> list[bytes]:
        """The bytes of several records in the file."""
        spans = zip(self._starts[rows].tolist(), self._ends[rows].tolist(), strict=True)
        return [self._file.bytes[start:end] for start, end in spans]

    def spans(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A text that holds the records at int64 `rows`, uint8, and begin and end of each, int64 (N, 2).

        The text is that of the file, unless one of the records was mended.
        """
        if self._columns is None or not self._columns.mended[rows].any():
            return self._file.array, np.stack([self._starts[rows], self._ends[rows]], axis=1)
        mended = self._columns.mended[rows].tolist()
        texts = [
            json.dumps(self[row]).encode() if changed else self.text(row)
            for row, changed in zip(rows.tolist(), mended, strict=True)
        ]
        ends = np.cumsum([0, *map(len, texts)])
        return np.frombuffer(bytearray(b"".join(texts)), np.uint8), np.stack([ends[:-1], ends[1:]], axis=1)


class Outlines(Sequence[Record]):
    """Records without segmentation, made from the columns when they are accessed."""

    def __init__(self, columns: AnnotationColumns) -> None:
        self._columns = columns

    def __len__(self) -> int:
        """Number of annotations."""
        return len(self._columns)

    def __getitem__(self, row: Any) -> Any:
        """The outline (of a slice: the list of outlines) at an index in file order."""
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        return self._columns.outline(row)

    def __iter__(self) -> Iterator[Record]:
        """All outlines in file order."""
        c = self._columns
        rows = zip(
            c.ids.tolist(),
            c.image_ids.tolist(),
            c.category_ids.tolist(),
            c.boxes.tolist(),
            c.crowd.tolist(),
            strict=True,
        )
        for annotation, image, category, box, crowd in rows:
            yield {
                "id": annotation,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "iscrowd": int(crowd),
            }


def cache_folder() -> Path:
    """Folder of cached indices: $MRB_CACHE_DIR, else maskrcnn_benchmark in the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maskrcnn_benchmark"


def scan(
    file: MappedFile, where: str
) -> tuple[dict[str, tuple[int, int]], np.ndarray, np.ndarray, ColumnBuilder]:
    """Scan a file in native code for the byte spans of its top-level values and of every annotation.

    Returns the spans by key, starts and ends of the annotations, and a builder with their checked columns:
    those of ordinary annotations come from the scan, all others are read by `read_annotation`. Raises
    DataError for text that is no JSON object, and for annotations that ColumnBuilder refuses.
    """
    load_ops()
    found, columns, error_at, message = torch.ops.maskrcnn_benchmark.scan_annotations(
        torch.from_numpy(file.array)
    )
    if error_at >= 0:
        before = file.bytes[:error_at]
        line, column = before.count(b"\n") + 1, error_at - before.rfind(b"\n")
        raise DataError(f"{where} is not valid JSON: {message} in line {line}, column {column}")
    arrays = dict(zip(_SCANNED, (column.numpy() for column in columns), strict=True))
    starts, ends, unusual = (arrays.pop(name) for name in ("starts", "ends", "unusual"))
    arrays["mended"] = np.zeros(len(starts), bool)
    builder = ColumnBuilder(where, arrays)
    for row in np.flatnonzero(unusual).tolist():
        builder.add(file.parse(int(starts[row]), int(ends[row])), row)
    sections = {
        str(file.parse(name - 1, name_end + 1)): (start, end) for name, name_end, start, end in found.tolist()
    }
    return sections, starts, ends, builder


def _folder(path: Path) -> Path:
    """Folder of the index of `path` with its current size and modification time."""
    state = path.stat()
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:24]
    return cache_folder() / "annotations" / f"{name}-{state.st_size}-{state.st_mtime_ns}"


def read_index(path: Path) -> FileIndex | None:
    """Read the cached index of `path`, arrays mapped into memory; None when there is no usable one."""
    folder = _folder(path)
    try:
        header = read_json(folder / "header.json", "annotation index")
        if header["version"] != VERSION or header.pop("checksum") != _checksum(header):
            return None
        names = (*AnnotationColumns.names(), *_SPANS)
        sums = {name: zlib.crc32((folder / f"{name}.npy").read_bytes()) for name in names}
        if sums != header["checksums"]:
            return None
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
        if {len(a) for a in arrays.values()} != {header["annotations"]}:
            return None
        sections = {key: (int(a), int(b)) for key, (a, b) in header["sections"].items()}
        facts: dict[str, Any] = {
            "sections": sections,
            "mends": Mends(header["mends"]),
            "mended_lists": bool(header["mended_lists"]),
            "suspicions": [str(line) for line in header["suspicions"]],
        }
    except (DataError, OSError, ValueError, KeyError, TypeError):
        return None
    spans = {name: arrays.pop(name) for name in _SPANS}
    return FileIndex(AnnotationColumns(**arrays), **spans, **facts)


def _checksum(header: dict[str, Any]) -> int:
    """CRC-32 of the values of a header, the same before and after it is stored as JSON."""
    stored = json.loads(json.dumps(header))
    return zlib.crc32(json.dumps(stored, sort_keys=True).encode())


def write_index(path: Path, index: FileIndex) -> None:
    """Write the index of `path` to the cache; a cache that cannot be written is logged, not an error."""
    target = _folder(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".index.", dir=target.parent))
    except OSError as error:
        logger.warning("the index of %s is not cached: %s (set %s to a folder)", path, error, CACHE_VARIABLE)
        return
    try:
        for name in AnnotationColumns.names():
            np.save(temporary / f"{name}.npy", getattr(index.columns, name))
        for name in _SPANS:
            np.save(temporary / f"{name}.npy", getattr(index, name))
        names = (*AnnotationColumns.names(), *_SPANS)
        header = {
            "version": VERSION,
            "checksums": {name: zlib.crc32((temporary / f"{name}.npy").read_bytes()) for name in names},
            "annotations": len(index.starts),
            "sections": index.sections,
            "mends": index.mends.stored(),
            "mended_lists": index.mended_lists,
            "suspicions": index.suspicions,
        }
        write_json(temporary / "header.json", header | {"checksum": _checksum(header)})
        for old in target.parent.glob(f"{target.name.split('-')[0]}-*"):
            shutil.rmtree(old, ignore_errors=True)
        os.rename(temporary, target)
    except (OSError, WriteError) as error:
        logger.warning("the index of %s is not cached: %s (set %s to a folder)", path, error, CACHE_VARIABLE)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
