"""Are all images of a data set there? Folders are listed instead of looking at every file.

Archives and URLs have listings of their own (`ImageSource.missing`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.data.datasets.annotation_index import cache_folder
from maskrcnn_benchmark.data.datasets.images import ImageReader, image_paths
from maskrcnn_benchmark.utils.errors import DataError, WriteError
from maskrcnn_benchmark.utils.files import read_json, write_json

logger = logging.getLogger(__name__)
LIST_FROM = 64
"""Images from which on folders are listed; fewer are looked at one by one, whatever else lies beside them."""
CACHE_FROM = 2000
"""Images from which on it is remembered that all are there, until one of their folders changes."""


def missing_images(images: ImageReader | str, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The image records without a file (see `image_names`), in their order.

    images: their reader, or the folder, archive or URL.
    """
    reader = images if isinstance(images, ImageReader) else ImageReader(images)
    if not reader.source.is_folder:
        return reader.missing(records)
    img_dir = reader.source.location
    if len(records) < LIST_FROM:
        return [r for r in records if not any(map(os.path.isfile, image_paths(img_dir, r)))]
    listings: dict[str, set[str]] = {}

    def exists(path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in listings:
            listings[folder] = _file_names(folder)
        return name in listings[folder]

    remembered = _Remembered(img_dir, records) if len(records) >= CACHE_FROM else None
    if remembered is not None and remembered.is_current():
        return []
    unlisted = [record for record in records if not any(map(exists, image_paths(img_dir, record)))]
    # names may differ in case from those of a file system that does not care
    missing = [r for r in unlisted if not any(map(os.path.isfile, image_paths(img_dir, r)))]
    if remembered is not None and not missing:
        remembered.write(listings)
    return missing


def check_images(
    images: ImageReader | str, records: Sequence[dict[str, Any]], ann_file: str, *, skip: bool = False
) -> None:
    """Look for the files of all images of a data set before it is used.

    Raises DataError naming a file, the number of missing ones and the folder. With `skip`
    (DATALOADER.BAD_IMAGE) some may be missing, which is logged.
    """
    reader = images if isinstance(images, ImageReader) else ImageReader(images)
    missing = missing_images(reader, records)
    if not missing:
        return
    where = ann_file or "the annotations"
    text = (
        f"image {missing[0]['id']} is missing: no file {reader.paths(missing[0])}; {len(missing)} of "
        f"{len(records)} images of {where} are not in {reader.img_dir}"
    )
    if skip and len(missing) < len(records):
        logger.warning("%s; they are skipped (DATALOADER.BAD_IMAGE)", text)
        return
    raise DataError(f"{text}; check the image folder of the data set")


def _file_names(folder: str) -> set[str]:
    """Names of the files of a folder (not of its folders); empty when it cannot be listed."""
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if not entry.is_dir()}
    except OSError:
        return set()


class _Remembered:
    """A note in the cache folder that all images of a list were there, with the times of their folders."""

    def __init__(self, img_dir: str, records: Sequence[dict[str, Any]]) -> None:
        names = json.dumps([[r["id"], r.get("file_name"), r.get("coco_url")] for r in records])
        digest = hashlib.sha256(f"{os.path.abspath(img_dir)}\n{names}".encode()).hexdigest()
        self._path = cache_folder() / "images" / f"{digest[:32]}.json"

    def is_current(self) -> bool:
        """Whether there is a note, and no folder has changed since."""
        try:
            times = read_json(self._path, "note on images")
            return bool(times) and all(os.stat(f).st_mtime_ns == time for f, time in times.items())
        except (DataError, OSError, AttributeError):
            return False

    def write(self, folders: dict[str, set[str]]) -> None:
        """Write the note; a cache that cannot be written only costs the time of the next look."""
        try:
            times = {
                os.path.abspath(f): os.stat(f or ".").st_mtime_ns for f in folders if Path(f or ".").is_dir()
            }
            write_json(self._path, times)
        except (DataError, OSError, WriteError) as error:
            logger.debug("the note on images is not cached: %s", error)
