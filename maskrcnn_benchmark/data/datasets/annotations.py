"""COCO- and LVIS-format annotation files, checked once when they are loaded."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_benchmark.data.datasets.annotation_index import (
    FileIndex,
    FileRecords,
    MappedFile,
    Outlines,
    read_index,
    scan,
    write_index,
)
from maskrcnn_benchmark.data.records.annotation import mended_record
from maskrcnn_benchmark.data.records.boxes import suspicions
from maskrcnn_benchmark.data.records.builder import ColumnBuilder
from maskrcnn_benchmark.data.records.columns import AnnotationColumns, Record
from maskrcnn_benchmark.data.records.content import Content, check_lists
from maskrcnn_benchmark.data.records.images import read_category_records, read_image_records
from maskrcnn_benchmark.data.records.mends import Mends, warn_once
from maskrcnn_benchmark.data.records.values import is_integer
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json

logger = logging.getLogger(__name__)
_TOP = ("images", "categories")
INDEX_FROM_BYTES = 2**24
"""Files of this size or more are read through a cached index; smaller ones are parsed at once."""


class AnnotationFile:
    """The content of one annotation file, indexed by image.

    Boxes are as in the file: x, y, width, height in pixels. The annotations of a large file are decoded when
    they are accessed: `raw` and `outline` hold a sequence there, not a list.

    Attributes:
        images: records sorted by id. categories: records in file order.
        columns: arrays over all annotations in file order.
        anns_by_image: image id to its annotations in file order; every image has an entry.
        raw: the JSON object. outline: the same, but annotations may lack their segmentation, which makes it
            cheap for large files.
        kind: "coco", "lvis", "voc" or "cityscapes", a kind of `config.catalog.KINDS` by which results are
            evaluated.
        mends: what the rules of `data.records` mended; the records of `raw` are as mended.
        suspicions: sentences on boxes that look wrong (`boxes.suspicions`).
        unlabelled: the file has no list of annotations at all (`image_info_*.json` of COCO's test sets): it
            can be predicted on, neither trained on nor evaluated.
    """

    def __init__(self, raw: dict[str, Any], path: str | PathLike[str] = "", kind: str = "") -> None:
        """Check and index `raw`; `path` is named in messages. `kind` "": "coco" or "lvis", by the content.

        Raises DataError naming the file and the record for what the rules of `data.records` refuse: missing
        keys, ids that occur twice, annotations of unknown images or categories, boxes that are not four
        finite values, segmentations that cannot be used, images without a size.
        """
        where = _where(fspath(path))
        raw, unlabelled = _check_top(raw, where)
        builder = ColumnBuilder(where)
        for record in raw["annotations"]:
            builder.add(record)
        records = raw["annotations"]
        columns, raw = _finish(builder, raw, where, records)
        if columns.mended.any():
            records = [mended_record(record, columns, row) for row, record in enumerate(records)]
        self._set(raw | {"annotations": records}, path, columns, kind, unlabelled)
        self.outline = self.raw
        self.mends, self.suspicions = builder.mends, suspicions(columns, self.images)
        self._log()

    def _set(
        self,
        raw: dict[str, Any],
        path: str | PathLike[str],
        columns: AnnotationColumns,
        kind: str,
        unlabelled: bool,
    ) -> None:
        """Set the attributes from checked content."""
        self.path = fspath(path)
        self.raw: dict[str, Any] = Content(raw, columns, unlabelled)
        self.columns = columns
        self.unlabelled = unlabelled
        self.categories: list[Record] = raw["categories"]
        self.images: list[Record] = sorted(raw["images"], key=lambda image: image["id"])
        ids = [image["id"] for image in self.images]
        self.anns_by_image = AnnotationsByImage(ids, columns.image_ids, raw["annotations"])
        federated = any("neg_category_ids" in image for image in self.images)
        by_content = "lvis" if federated or any("frequency" in c for c in self.categories) else "coco"
        self.kind = kind or by_content

    @classmethod
    def load(
        cls, path: str | PathLike[str], index_from: int = INDEX_FROM_BYTES, kind: str = ""
    ) -> AnnotationFile:
        """Read and check the JSON file `path`; from `index_from` bytes on through a cached index.

        Raises DataError when it is missing, no JSON or wrong, see the constructor.
        """
        if not Path(path).is_file() or Path(path).stat().st_size < index_from:
            return cls(read_json(path, "annotation file"), path, kind)
        self = cls._open(Path(path), kind)
        self._log()
        return self

    @classmethod
    def _open(cls, path: Path, kind: str = "") -> AnnotationFile:
        """Open a large file through its index, which is made if there is none."""
        file, where = MappedFile(str(path)), _where(str(path))
        index = read_index(path)
        if index is not None:
            raw, unlabelled = _check_top(_sections(file, index.sections), where)
            if index.mended_lists:
                raw = _checked(raw, where, Mends())
        else:
            began = time.perf_counter()
            logger.info("%s: making the index (cached for the next time)", where)
            sections, starts, ends, builder = scan(file, where)
            raw, unlabelled = _check_top(_sections(file, sections), where)
            given = _lists(raw)
            columns, raw = _finish(builder, raw, where, FileRecords(file, starts, ends))
            index = FileIndex(
                columns,
                starts,
                ends,
                sections=sections,
                mends=builder.mends,
                mended_lists=any(a is not b for a, b in zip(given, _lists(raw), strict=True)),
                suspicions=suspicions(columns, raw["images"]),
            )
            write_index(path, index)
            logger.info(
                "%s: %d annotations indexed in %.1f s", where, len(starts), time.perf_counter() - began
            )
        records = FileRecords(file, index.starts, index.ends, index.columns)
        self = cls.__new__(cls)
        self._set(raw | {"annotations": records}, path, index.columns, kind, unlabelled)
        self.outline = raw | {"annotations": Outlines(index.columns)}
        self.mends, self.suspicions = index.mends, index.suspicions
        return self

    def _log(self) -> None:
        """Warn of what was mended, and of boxes that look wrong, once per file."""
        self.mends.log(_where(self.path))
        for line in self.suspicions:
            warn_once(f"{_where(self.path)}: {line}")

    def __reduce__(self) -> Any:
        """Pickle the path of a file that is read through an index, so that workers share the mapped file."""
        if isinstance(self.raw["annotations"], FileRecords):
            return AnnotationFile._open, (Path(self.path), self.kind)
        content = {
            key: value for key, value in self.raw.items() if key != "annotations" or not self.unlabelled
        }
        return AnnotationFile, (content, self.path, self.kind)

    @property
    def category_ids(self) -> list[int]:
        """Category ids in file order."""
        return [category["id"] for category in self.categories]


def read_truth(path: str | PathLike[str]) -> Content:
    """Read the annotations of a COCO or LVIS file to evaluate against; images need no name and no size.

    They are read by the rules of `AnnotationFile`, in native code where they are ordinary, and stay in the
    mapped file. Nothing is cached. Raises DataError when the file is missing, no JSON, or breaks the rules.
    """
    where = _where(fspath(path))
    if not Path(path).is_file():
        raise DataError(f"{where} does not exist or is no file")
    file = MappedFile(fspath(path))
    sections, starts, ends, builder = scan(file, where)
    raw, unlabelled = _check_top(_sections(file, sections), where)
    check_lists(raw, where, builder.mends)
    known = {category["id"] for category in raw["categories"]}
    columns = builder.finish(raw["images"], known, FileRecords(file, starts, ends))
    builder.mends.log(where)
    return Content(raw | {"annotations": FileRecords(file, starts, ends, columns)}, columns, unlabelled)


class AnnotationsByImage(Mapping[int, list[Record]]):
    """Image id -> its annotation records in file order; every image has an entry."""

    def __init__(self, ids: Sequence[int], image_ids: np.ndarray, records: Sequence[Record]) -> None:
        """`ids` of all images, ascending; `image_ids` int64 (N,) of the `records`."""
        self._order = np.argsort(image_ids, kind="stable")
        ends = np.searchsorted(image_ids[self._order], np.asarray(ids, np.int64), side="right").tolist()
        self._spans = dict(zip(ids, zip([0, *ends], ends, strict=False), strict=True))
        self._records = records

    def rows(self, image_id: int) -> np.ndarray:
        """Indices of the annotations of an image in file order, int64 (N,) ascending."""
        return self._order[slice(*self._spans[image_id])]

    def __getitem__(self, image_id: int) -> list[Record]:
        return [self._records[row] for row in self.rows(image_id).tolist()]

    def take(self, rows: np.ndarray) -> list[Record]:
        """The records at int64 indices in file order."""
        return [self._records[row] for row in rows.tolist()]

    def __iter__(self) -> Iterator[int]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)


def is_degenerate(ann: Record) -> bool:
    """Whether a side of the box is at most one pixel: such an annotation is not trained on (parity)."""
    return ann["bbox"][2] <= 1 or ann["bbox"][3] <= 1


def first_images(annotations: dict[str, Any], count: int) -> dict[str, Any]:
    """Keep the `count` images of lowest id that hold objects, with their objects, and all other sections.

    annotations: content of a COCO or LVIS file, which is not changed. Raises DataError when it lacks
    `images` or `annotations`, one of their records has no id, or it holds fewer such images.
    """
    for key, id_key in (("images", "id"), ("annotations", "image_id")):
        records = annotations.get(key) if isinstance(annotations, dict) else None
        if not isinstance(records, list):
            raise DataError(f"the annotation file has no {key!r}; give one of COCO or LVIS format")
        for number, record in enumerate(records):
            if not (isinstance(record, dict) and is_integer(record.get(id_key))):
                raise DataError(f'number {number} of {key!r} has no integer "{id_key}"; correct it')
    filled = {entry["image_id"] for entry in annotations["annotations"]}
    images = sorted((i for i in annotations["images"] if i["id"] in filled), key=lambda i: i["id"])
    if not 0 < count <= len(images):
        raise DataError(f"cannot keep {count} images: {len(images)} hold objects; ask for 1 to {len(images)}")
    ids = {image["id"] for image in images[:count]}
    objects = [entry for entry in annotations["annotations"] if entry["image_id"] in ids]
    return annotations | {"images": images[:count], "annotations": objects}


def _where(path: str) -> str:
    """The name of the file in messages."""
    return f"annotation file {path}" if path else "annotations"


def _sections(file: MappedFile, sections: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Parse the values of all top-level keys; the list of annotations is left empty."""
    return {
        key: [] if key == "annotations" and file.bytes[start : start + 1] == b"[" else file.parse(start, end)
        for key, (start, end) in sections.items()
    }


def _finish(
    builder: ColumnBuilder, raw: dict[str, Any], where: str, records: Sequence[Record]
) -> tuple[AnnotationColumns, dict[str, Any]]:
    """Check images and categories, then the annotations beside them; returns the columns and the content."""
    raw = _checked(raw, where, builder.mends)
    categories = {category["id"] for category in raw["categories"]}
    return builder.finish(raw["images"], categories, records), raw


def _checked(raw: dict[str, Any], where: str, mends: Mends) -> dict[str, Any]:
    """The content with its images and categories as the rules read them."""
    images = read_image_records(raw["images"], where, mends)
    return raw | {"images": images, "categories": read_category_records(raw["categories"], where, mends)}


def _lists(raw: dict[str, Any]) -> list[Record]:
    """All image and category records."""
    return [*raw["images"], *raw["categories"]]


def _check_top(raw: Any, where: str) -> tuple[dict[str, Any], bool]:
    """The content with a list of annotations, and whether the file has none.

    Raises DataError unless it is an object with the lists of images and categories.
    """
    if not isinstance(raw, dict):
        raise DataError(
            f"{where} must hold a JSON object in COCO or LVIS format, found a {type(raw).__name__}"
        )
    unlabelled = raw.get("annotations") is None and all(isinstance(raw.get(k), list) for k in _TOP)
    for key in _TOP if unlabelled else ("images", "annotations", "categories"):
        if not isinstance(raw.get(key), list):
            raise DataError(
                f'{where} has no list "{key}"; COCO and LVIS files have images, annotations, categories'
            )
    return (raw | {"annotations": []} if unlabelled else raw), unlabelled
