"""Are the annotation files and the images there, and do they agree?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.config.catalog import KINDS
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.image_decoding import ImageOptions
from maskrcnn_benchmark.data.datasets.image_files import missing_images
from maskrcnn_benchmark.data.datasets.images import ImageReader
from maskrcnn_benchmark.doctor.checkup import TEST, TRAIN, Checkup, DataSource
from maskrcnn_benchmark.doctor.finding import Finding, NotChecked, error, note, ok, size_text, warning
from maskrcnn_benchmark.utils.errors import DataError

OPENED = 32
"""Images of a data set that are decoded, evenly spread; all are looked for on the disk."""

_DEMO = "make the demo data: python -m maskrcnn_benchmark.data.datasets.demo --out datasets/demo"


def check_data(checkup: Checkup) -> Iterator[Finding]:
    """Yield findings on every data set of the run."""
    sources = checkup.sources
    for key, problem in checkup.unknown_sources:
        yield error(problem, key, advice=f"correct the name in {key}; datasets/README.md lists the forms")
    if not any(source.role == TRAIN for source in sources) and not checkup.unknown_sources:
        yield error("no training data is named", "DATASETS.TRAIN", advice="name a data set to train on")
    for source in sources:
        yield from _source(checkup, source)
    files = {s.spec.ann_file for s in sources if s.role == TRAIN}
    for source in sources:
        if source.role == TEST and source.spec.ann_file in files:
            yield warning(
                f"{source.spec.ann_file} is both trained and tested on: the AP will say nothing about new "
                "images",
                source.ann_key,
                advice="test on other images",
            )


def _fix(path: str, key: str) -> str:
    """Return what to do about something missing."""
    if "demo" in Path(path).parts:
        return _DEMO
    return f"put it there (datasets/README.md says where data goes) or change {key}"


def _source(checkup: Checkup, source: DataSource) -> Iterator[Finding]:
    """Check one data set: annotation file, then images."""
    spec = source.spec
    if not os.path.exists(spec.ann_file):
        yield error(
            f"{KINDS[spec.kind].ann_file} {spec.ann_file} does not exist",
            source.ann_key,
            advice=_fix(spec.ann_file, source.ann_key),
        )
    reader: ImageReader | None = None
    try:
        reader = ImageReader(spec.img_dir, ImageOptions.from_cfg(checkup.cfg))
    except DataError as problem:
        yield error(str(problem), source.img_key, advice=_fix(spec.img_dir, source.img_key))
    if reader is not None and not reader.source.is_there():
        reader = None
        yield error(
            f"image folder {spec.img_dir} does not exist",
            source.img_key,
            advice=_fix(spec.img_dir, source.img_key),
        )
    if not os.path.exists(spec.ann_file):
        return
    size = size_text(os.path.getsize(spec.ann_file)) if os.path.isfile(spec.ann_file) else "a folder"
    try:
        annotations = checkup.read(source)
    except NotChecked as why:
        yield note(f"{spec.ann_file} is there ({size}); {why}", source.ann_key)
        return
    except DataError as problem:
        yield error(str(problem), source.ann_key, advice="correct the file or name another one")
        return
    yield from _annotations(source, annotations, size)
    if reader is not None and annotations.images:
        yield from _images(source, annotations, reader, skip=checkup.cfg.DATALOADER.BAD_IMAGE == "skip")


def _annotations(source: DataSource, annotations: AnnotationFile, size: str) -> Iterator[Finding]:
    """Count what a file holds, and what in it will not be used."""
    path, key = source.spec.ann_file, source.ann_key
    columns = annotations.columns
    kind = annotations.kind.upper()
    yield ok(
        f"{path} ({kind}, {size}): {len(annotations.images)} images, {len(columns)} objects, "
        f"{len(annotations.categories)} categories",
        key,
    )
    if annotations.unlabelled and source.role == TEST:
        yield note(f"{path} has no annotations: predictions are written, no AP is computed", key)
        return
    if not len(columns):
        yield error(f"{path} holds no object", key, advice="name a file with annotations")
        return
    useless, crowds = int(columns.degenerate().sum()), int(columns.crowd.sum())
    if useless or crowds:
        yield note(
            f"{path}: {useless} boxes with a side of at most one pixel and {crowds} crowd regions (or "
            "difficult objects) are not trained on",
            key,
        )
    for line in annotations.suspicions:
        yield warning(
            f"{path}: {line}", key, advice="boxes are x, y, width, height in pixels of the recorded size"
        )
    for line in annotations.mends.lines():
        yield note(f"{path}: {line}", key)


def _evenly(records: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return `count` records at even distances, or all of them."""
    if len(records) <= count:
        return records
    return [records[i * (len(records) - 1) // (count - 1)] for i in range(count)]


def _images(
    source: DataSource, annotations: AnnotationFile, reader: ImageReader, skip: bool
) -> Iterator[Finding]:
    """Check for images that do not exist or cannot be used."""
    folder, key = source.spec.img_dir, source.img_key
    looked = annotations.images
    missing = missing_images(reader, looked)
    if missing:
        example = reader.paths(missing[0])
        yield (warning if skip and len(missing) < len(looked) and source.role == TRAIN else error)(
            f"{len(missing)} of {len(looked)} images that were looked for are not in {folder}; "
            f"image {missing[0]['id']}: no file {example}",
            key,
            advice=f"check that {key} is the folder that file_name of the annotations starts from",
        )
    gone = {record["id"] for record in missing}
    opened = _evenly([record for record in looked if record["id"] not in gone], OPENED)
    problems: list[str] = []
    for record in opened:
        try:
            reader.read(record)
        except DataError as problem:
            problems.append(str(problem))
    if problems:
        yield (warning if skip and source.role == TRAIN else error)(
            f"{len(problems)} of {len(opened)} images that were opened cannot be used; {problems[0]}",
            key,
            "DATALOADER.BAD_IMAGE",
            advice="replace them, or set DATALOADER.BAD_IMAGE skip to train without them",
        )
    elif opened:
        yield ok(f"{folder}: {len(opened)} of {len(opened)} images open and have the recorded sizes", key)
