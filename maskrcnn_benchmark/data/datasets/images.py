"""Finding and reading the image of an annotation record."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from PIL import Image

from maskrcnn_benchmark.data.datasets.image_decoding import (
    DecodedImage,
    ImageError,
    ImageOptions,
    decode_image,
)
from maskrcnn_benchmark.data.datasets.image_sources import ImageSource, open_image_source
from maskrcnn_benchmark.utils.errors import DataError

Record = dict[str, Any]
_TURNS = {
    2: "flipped left to right",
    3: "rotated by 180 degrees",
    4: "flipped upside down",
    5: "transposed",
    6: "rotated by 90 degrees",
    7: "transposed and rotated by 180 degrees",
    8: "rotated by 270 degrees",
}


def image_names(record: Record) -> list[str]:
    """Possible names of the image of `record` below its image folder, likeliest first.

    COCO and most sets: file_name. LVIS v0.5 keeps COCO 2014 names (COCO_val2014_<12 digits>.jpg) for images
    of the 2017 folders. LVIS v1 has only `coco_url`, whose last two parts are folder and name.
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
    return list(dict.fromkeys(names))


def image_paths(img_dir: str, record: Record) -> list[str]:
    """Possible paths of the image of `record` (see `image_names`), likeliest first."""
    return [os.path.join(img_dir, name) for name in image_names(record)]


def image_name(record: Record) -> str:
    """Name of the image of `record` for messages: its file name, else its URL."""
    return str(record.get("file_name") or record.get("coco_url") or record["id"])


class ImageReader:
    """Reads the images of records from a folder, a zip or tar file or a URL (see `open_image_source`)."""

    def __init__(self, img_dir: str, options: ImageOptions | None = None) -> None:
        """Open the place of the images; DataError as `open_image_source`."""
        self.img_dir = img_dir
        self.options = options or ImageOptions()
        self.source: ImageSource = open_image_source(img_dir)

    def exists(self, record: Record) -> bool:
        """Whether the image of `record` is there."""
        return any(map(self.source.is_file, image_names(record)))

    def missing(self, records: Iterable[Record]) -> list[Record]:
        """The records whose image is not there, in order (`missing_images` lists local folders instead).

        Of a server that gives no listing, 64 images at even distances are looked for.
        """
        records = list(records)
        return [records[i] for i in self.source.missing([image_names(record) for record in records])]

    def paths(self, record: Record) -> str:
        """Where the image of `record` is looked for, for messages: "a/1.jpg or a/b/1.jpg"."""
        return " or ".join(map(self.source.path, image_names(record))) or "is named"

    def _missing(self, record: Record) -> DataError:
        return DataError(
            f"image {record['id']} is missing: no file {self.paths(record)}; check the image folder of the "
            "data set"
        )

    def read(self, record: Record) -> Image.Image:
        """Read the image of `record` as RGB with 8 bits per channel (see `to_rgb`).

        Raises DataError naming file and image id when there is no such file, it cannot be decoded completely,
        its orientation is refused, or its size is not that of the record.
        """
        name = self.source.find(image_names(record))
        if name is None:
            raise self._missing(record)
        path = self.source.path(name)
        try:
            decoded = decode_image(self.source.open(name), self.options)
        except FileNotFoundError:
            raise self._missing(record) from None
        except (ImageError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"image {record['id']} cannot be read: {path}: {reason}; replace the file, or set "
                "DATALOADER.BAD_IMAGE skip to train without it"
            ) from None
        return _oriented(decoded, record, path, self.options.exif)


def read_record_image(img_dir: str, record: Record, options: ImageOptions | None = None) -> Image.Image:
    """Read the image of one record; `ImageReader` reads many."""
    return ImageReader(img_dir, options).read(record)


def read_source_image(source: ImageSource, name: str, options: ImageOptions | None = None) -> Image.Image:
    """Read an image without a record as RGB, upright as its EXIF orientation says.

    Raises DataError when it is missing or cannot be decoded to its end.
    """
    path = source.path(name)
    try:
        return decode_image(source.open(name), options or ImageOptions()).upright()
    except FileNotFoundError:
        raise DataError(f"image {path} does not exist") from None
    except (ImageError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"image {path} cannot be read: {reason}") from None


def _oriented(decoded: DecodedImage, record: Record, path: str, exif: str) -> Image.Image:
    """Flip and rotate as INPUT.EXIF says and compare the size with the record.

    "refuse" accepts an orientation that exchanges the sides where the record has those of the stored pixels.
    """
    image = decoded.upright() if exif == "apply" else decoded.stored
    expected = (record["width"], record["height"])
    tag, reason = decoded.orientation, ""
    if tag != 1 and exif == "refuse":
        sides_tell = tag >= 5 and image.width != image.height
        if sides_tell and image.size == expected:
            return image
        reason = (
            f"; its EXIF orientation {tag} shows it {_TURNS[tag]}, which INPUT.EXIF refuse does not follow: "
            "set INPUT.EXIF apply where boxes belong to the image as shown, ignore where to the stored pixels"
        )
        if image.size == expected:
            raise DataError(f"image {record['id']}: {path} is not stored as it is shown{reason}")
    elif tag != 1:
        reason = f"; its EXIF orientation is {tag} ({_TURNS[tag]}) and INPUT.EXIF is {exif}"
    if image.size != expected:
        raise DataError(
            f"image {record['id']}: {path} is {image.width} x {image.height}, its record says "
            f"{expected[0]} x {expected[1]}{reason or '; correct the annotation file or the image'}"
        )
    return image
