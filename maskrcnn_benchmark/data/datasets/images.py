"""Finding and reading the image file of an annotation record."""

from __future__ import annotations

import os
from typing import Any

from PIL import Image

from maskrcnn_benchmark.utils.errors import DataError


def image_paths(img_dir: str, record: dict[str, Any]) -> list[str]:
    """Possible paths of the image of `record`, likeliest first.

    COCO and most sets: `img_dir`/file_name. LVIS v0.5 keeps COCO 2014 names (COCO_val2014_<12 digits>.jpg)
    for images of the 2017 folders. LVIS v1 has only `coco_url`, whose last two parts are folder and name.
    """
    names: list[str] = []
    if name := record.get("file_name"):
        names.append(name)
        base = os.path.basename(name)
        if base.startswith("COCO_"):
            names.append(base.rsplit("_", 1)[-1])
    if url := record.get("coco_url"):
        parts = url.split("/")
        names += ["/".join(parts[-2:]), parts[-1]]
    return [os.path.join(img_dir, name) for name in dict.fromkeys(names)]


def image_name(record: dict[str, Any]) -> str:
    """Name of the image of `record` for messages: its file name, else its URL."""
    return str(record.get("file_name") or record.get("coco_url") or record["id"])


def read_record_image(img_dir: str, record: dict[str, Any]) -> Image.Image:
    """Read the image of `record` as a PIL RGB image (greyscale and palette images are converted).

    Raises DataError naming file and image id when there is no such file, it cannot be decoded completely, or
    its size is not that of the record.
    """
    paths = image_paths(img_dir, record)
    path = next((p for p in paths if os.path.isfile(p)), None)
    if path is None:
        raise DataError(
            f"image {record['id']} is missing: no file {' or '.join(paths)}; "
            "check the image folder of the data set"
        )
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"image {record['id']} cannot be read: {path}: {error}; replace the file, or set "
            "DATALOADER.BAD_IMAGE skip to train without it"
        ) from None
    expected = (record["width"], record["height"])
    if image.size != expected:
        raise DataError(
            f"image {record['id']}: {path} is {image.width} x {image.height}, its record says "
            f"{expected[0]} x {expected[1]}; correct the annotation file or the image"
        )
    return image
