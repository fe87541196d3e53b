"""The class list of a data set without its images and annotations, and lists that must agree."""

from __future__ import annotations

import json
import mmap
import re
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.config.catalog import DatasetSpec
from maskrcnn_benchmark.data.datasets.cityscapes import THING_IDS, THING_NAMES
from maskrcnn_benchmark.data.datasets.readers import load_annotations
from maskrcnn_benchmark.data.datasets.voc import VOC_CLASSES
from maskrcnn_benchmark.structures.class_list import ClassList
from maskrcnn_benchmark.utils.errors import DataError

_KEY = re.compile(rb'"categories"\s*:\s*(?=\[)')
_FIRST_BYTES = 2**20


def read_class_list(spec: DatasetSpec) -> ClassList:
    """Read the classes of a data set in the order of its files.

    Of a JSON file of any size only the list "categories" is decoded. Raises DataError where the files are
    missing or wrong.
    """
    if spec.kind == "voc":
        names = spec.classes or VOC_CLASSES
        return ClassList(tuple(names), tuple(range(1, len(names) + 1)), spec.ann_file)
    if spec.kind in ("cityscapes_poly", "cityscapes_mask"):
        return ClassList(tuple(THING_NAMES), tuple(THING_IDS), spec.ann_file)
    categories = _find_categories(Path(spec.ann_file))
    if categories is None:
        categories = load_annotations(spec).categories
    return ClassList.of_categories(categories, spec.ann_file)


def _find_categories(path: Path) -> list[dict[str, Any]] | None:
    """The only list called "categories" of a JSON file, records of id and name; None if it is not sure."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            ends = [match.end() for match in _KEY.finditer(content)]
            return _decode_list(content, ends[0]) if len(ends) == 1 else None
    except OSError as error:
        raise DataError(f"annotation file {path} cannot be read: {error.strerror or error}") from None
    except ValueError:  # an empty file, or no JSON: the reader says what is wrong with it
        return None


def _decode_list(content: mmap.mmap, start: int) -> list[dict[str, Any]] | None:
    """Decode the JSON list of category records at byte `start`; None when it is none."""
    size = _FIRST_BYTES
    while True:
        text = content[start : start + size].decode("utf-8", "ignore")
        try:
            value, _ = json.JSONDecoder().raw_decode(text)
            break
        except (ValueError, RecursionError):
            if start + size >= len(content):
                return None
            size *= 8
    valid = isinstance(value, list) and all(
        isinstance(record, dict) and type(record.get("id")) is int and isinstance(record.get("name"), str)
        for record in value
    )
    return value if valid else None
