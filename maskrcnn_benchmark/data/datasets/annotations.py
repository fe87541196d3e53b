"""COCO- and LVIS-format annotation files, checked once when they are loaded."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_benchmark.data.datasets.annotation_columns import AnnotationColumns, ColumnBuilder, Record
from maskrcnn_benchmark.data.datasets.annotation_index import (
    FileIndex,
    FileRecords,
    MappedFile,
    Outlines,
    read_index,
    scan,
    write_index,
)
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json

logger = logging.getLogger(__name__)
MAX_SIDE = 2**20  # pixels
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
    """

    def __init__(self, raw: dict[str, Any], path: str | PathLike[str] = "", kind: str = "") -> None:
        """Check and index `raw`; `path` is named in messages. `kind` "": "coco" or "lvis", by the content.

        Raises DataError naming the file and the record for missing keys, ids that occur twice, annotations of
        unknown images or categories, boxes that are not four finite values, images without a size.
        """
        where = _where(fspath(path))
        _check_top(raw, where)
        builder = ColumnBuilder(where)
        for record in raw["annotations"]:
            builder.add(record)
        self._set(raw, path, _finish(builder, raw, where), raw["annotations"], kind)
        self.outline = raw

    def _set(
        self,
        raw: dict[str, Any],
        path: str | PathLike[str],
        columns: AnnotationColumns,
        records: Sequence[Record],
        kind: str,
    ) -> None:
        """Set the attributes from checked content."""
        self.path = fspath(path)
        self.raw = raw
        self.columns = columns
        self.categories: list[Record] = raw["categories"]
        self.images: list[Record] = sorted(raw["images"], key=lambda image: image["id"])
        self.anns_by_image = AnnotationsByImage([i["id"] for i in self.images], columns.image_ids, records)
        federated = any("neg_category_ids" in image for image in self.images[:1])
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
        return cls._open(Path(path), kind)

    @classmethod
    def _open(cls, path: Path, kind: str = "") -> AnnotationFile:
        """Open a large file through its index, which is made if there is none."""
        file, where = MappedFile(str(path)), _where(str(path))
        index = read_index(path)
        if index is not None:
            raw = _sections(file, index.sections)
        else:
            began = time.perf_counter()
            logger.info("%s: making the index (cached for the next time)", where)
            sections, starts, ends, builder = scan(file, where)
            raw = _sections(file, sections)
            _check_top(raw, where)
            spans = np.frombuffer(starts, np.int64), np.frombuffer(ends, np.int64)
            index = FileIndex(_finish(builder, raw, where), *spans, sections=sections)
            write_index(path, index)
            logger.info(
                "%s: %d annotations indexed in %.1f s", where, len(starts), time.perf_counter() - began
            )
        records = FileRecords(file, index.starts, index.ends)
        self = cls.__new__(cls)
        self._set(raw | {"annotations": records}, path, index.columns, records, kind)
        self.outline = raw | {"annotations": Outlines(index.columns)}
        return self

    def __reduce__(self) -> Any:
        """Pickle the path of a file that is read through an index, so that workers share the mapped file."""
        if isinstance(self.raw["annotations"], FileRecords):
            return AnnotationFile._open, (Path(self.path), self.kind)
        return AnnotationFile, (self.raw, self.path, self.kind)

    @property
    def category_ids(self) -> list[int]:
        """Category ids in file order."""
        return [category["id"] for category in self.categories]


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
    `images` or `annotations`, or holds fewer such images.
    """
    for key in ("images", "annotations"):
        if key not in annotations:
            raise DataError(f"the annotation file has no {key!r}; give one of COCO or LVIS format")
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


def _finish(builder: ColumnBuilder, raw: dict[str, Any], where: str) -> AnnotationColumns:
    """Check images and categories, then the references of the annotations to them."""
    _checked_images(raw["images"], where)
    categories = _unique_ids(raw["categories"], "category", ("name",), where)
    return builder.finish({image["id"] for image in raw["images"]}, categories)


def _check_top(raw: Any, where: str) -> None:
    """Raise DataError unless the content is an object with the three lists."""
    if not isinstance(raw, dict):
        raise DataError(
            f"{where} must hold a JSON object in COCO or LVIS format, found a {type(raw).__name__}"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(raw.get(key), list):
            raise DataError(
                f'{where} has no list "{key}"; COCO and LVIS files have images, annotations, categories'
            )


def _unique_ids(records: Iterable[Record], what: str, keys: tuple[str, ...], where: str) -> set[int]:
    """Return the ids of `records`; DataError for a missing key, and ids that are missing or repeated."""
    seen: set[int] = set()
    for position, record in enumerate(records):
        record_id = record.get("id") if isinstance(record, dict) else None
        if not isinstance(record_id, int) or isinstance(record_id, bool):
            raise DataError(f'{where}: {what} number {position} has no integer "id"')
        if record_id in seen:
            raise DataError(f"{where}: {what} id {record_id} occurs twice; give every {what} its own id")
        seen.add(record_id)
        for key in keys:
            if key not in record:
                raise DataError(f'{where}: {what} {record_id} has no "{key}"')
    return seen


def _checked_images(images: list[Record], where: str) -> list[Record]:
    """Return `images`; DataError unless all have a size and a name."""
    _unique_ids(images, "image", ("width", "height"), where)
    for image in images:
        if not (image.get("file_name") or image.get("coco_url")):
            raise DataError(f'{where}: image {image["id"]} has neither "file_name" nor "coco_url"')
        name, url = image.get("file_name", ""), image.get("coco_url", "")
        if not (isinstance(name, str | None) and isinstance(url, str | None)):
            raise DataError(f"{where}: image {image['id']} has the name {name!r}; expected text")
        sides = image["width"], image["height"]
        if not all(isinstance(side, int | float) and 0 < side < MAX_SIDE for side in sides):
            raise DataError(
                f"{where}: image {image['id']} has the size {sides[0]!r} x {sides[1]!r}; expected two "
                "positive numbers"
            )
    return images
