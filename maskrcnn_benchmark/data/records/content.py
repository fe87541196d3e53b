"""The content of a checked file, and the columns of content that was not read from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maskrcnn_benchmark.data.records.annotation import mended_record
from maskrcnn_benchmark.data.records.builder import ColumnBuilder
from maskrcnn_benchmark.data.records.columns import AnnotationColumns, Record
from maskrcnn_benchmark.data.records.images import read_category_lists
from maskrcnn_benchmark.data.records.mends import Mends
from maskrcnn_benchmark.data.records.values import is_integer, shown
from maskrcnn_benchmark.utils.errors import DataError

_WHERE = "annotations"


class Content(dict[str, Any]):
    """The JSON object of a checked file, its records as the rules read them. A copy is an ordinary dict.

    Attributes: `columns` of its annotations; `unlabelled`: the file has no list of annotations at all.
    """

    def __init__(self, content: Mapping[str, Any], columns: AnnotationColumns, unlabelled: bool) -> None:
        super().__init__(content)
        self.columns = columns
        self.unlabelled = unlabelled

    def __reduce__(self) -> Any:
        """Copies may be changed, so they have no columns."""
        return dict, (dict(self),)


class Picked(Sequence[Record]):
    """Some of the records of a sequence, decoded (for a large file) when one of them is accessed."""

    def __init__(self, records: Sequence[Record], rows: np.ndarray) -> None:
        """The `records` at int64 `rows` (N,), in that order."""
        self.records = records
        self.rows = rows
        self._list: list[Record] | None = None

    def select(self, order: np.ndarray) -> Picked:
        """The records at int64 indices, in that order."""
        return Picked(self.records, self.rows[order])

    def __len__(self) -> int:
        """Number of records."""
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """One record, or the list of a slice."""
        if self._list is None:
            self._list = [self.records[row] for row in self.rows.tolist()]
        return self._list[index]


def read_content(dataset: Mapping[str, Any]) -> tuple[AnnotationColumns, Sequence[Record]]:
    """The columns and records of all annotations whose category `dataset` lists, by the rules of a file.

    dataset: a dict with the keys `images`, `annotations` (missing: none) and `categories`, whose images need
    no name and no size. Content of an `AnnotationFile` was checked before and is not read again.

    Raises DataError naming the record, see `read_annotation` and `ColumnBuilder.finish`.
    """
    if isinstance(dataset, Content):
        return dataset.columns, dataset["annotations"]
    builder = ColumnBuilder(_WHERE)
    check_lists(dataset, _WHERE, builder.mends)
    known = {category["id"] for category in dataset["categories"]}
    records = [a for a in dataset.get("annotations", ()) if not _is_of_other_category(a, known)]
    for record in records:
        builder.add(record)
    columns = builder.finish(dataset["images"], known, records)
    builder.mends.log(_WHERE)
    if columns.mended.any():
        records = [mended_record(record, columns, row) for row, record in enumerate(records)]
    return columns, records


def check_lists(dataset: Mapping[str, Any], where: str, mends: Mends) -> None:
    """Check the lists of content whose images need no name and no size; `where` begins messages.

    Raises DataError for what is no list, and for an image or a category without an id. Null lists of
    categories are counted in `mends`.
    """
    for what in ("images", "categories", "annotations"):
        listed = dataset.get(what, [] if what == "annotations" else None)
        if not isinstance(listed, Sequence) or isinstance(listed, str):
            raise DataError(f'{where}: "{what}" must be a list of records, got {shown(listed)}')
        for number, record in enumerate(listed if what != "annotations" else ()):
            if not (isinstance(record, dict) and is_integer(record.get("id"))):
                raise DataError(f'{where}: number {number} of "{what}" has no integer "id"')
            if what == "images":
                read_category_lists(record, where, mends)


def _is_of_other_category(record: Any, known: set[int]) -> bool:
    """Whether a record is of a category that is not `known`; records that the rule refuses are not."""
    category = record.get("category_id") if isinstance(record, Mapping) else None
    return is_integer(category) and category not in known
