"""Damaged images in every format that Pillow writes, opened as training and prediction open them."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from mutations import mutate_bytes
from PIL import Image

from maskrcnn_benchmark.data.datasets.image_decoding import ImageOptions
from maskrcnn_benchmark.data.datasets.images import read_record_image
from maskrcnn_benchmark.engine.frames import read_image_file

SIZE = (12, 9)
EXIF = ("refuse", "apply", "ignore")
MODES = ("RGB", "L", "P", "1", "RGBA", "I;16", "F", "CMYK")


def written_formats() -> dict[str, list[bytes]]:
    """Small images of every format that this Pillow writes, in the modes that the format takes."""
    Image.init()
    made: dict[str, list[bytes]] = {}
    for name in sorted(Image.SAVE):
        for mode in MODES:
            image = Image.linear_gradient("L").resize(SIZE)
            image = Image.new(mode, SIZE, 9) if mode in ("I;16", "F") else image.convert(mode)
            buffer = io.BytesIO()
            try:
                image.save(buffer, format=name)
            except Exception:  # a mode that it does not take, or a library that is not there
                continue
            if buffer.getvalue():
                made.setdefault(name, []).append(buffer.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("JPEG", "PNG", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        Image.new("RGB", SIZE, "red").save(buffer, format=name, exif=exif)
        made[name].append(buffer.getvalue())
    return made


class Images:
    """Image files under names that suit them or not."""

    name = "images"

    def prepare(self, folder: Path) -> None:
        """Write one image per format and mode."""
        self._formats = written_formats()

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        """Damage bytes, or put parts of two formats together."""
        data = rng.choice(self._formats[rng.choice(list(self._formats))])
        kind = rng.randrange(10)
        if kind == 0:
            data = data[: rng.randrange(len(data))]
        elif kind == 1:
            other = rng.choice(self._formats[rng.choice(list(self._formats))])
            data = data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]
        elif kind < 9:
            data = mutate_bytes(rng, data)
        name = "image" + rng.choice([".jpg", ".png", ".tif", ".webp", ".gif", ".bmp", "", ".eps"])
        record = {"id": 1, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
        options = ImageOptions(exif=rng.choice(EXIF), depth_range=rng.choice([(), (0.0, 1.0), (-5.0, 300.0)]))
        if rng.random() < 0.2:
            place = folder / rng.choice(["a.zip", "a.tar", "a.tar.gz"])
            place.write_bytes(_archive(rng, place.suffix, name, data))
            return lambda: read_record_image(str(place), record, options)
        path = folder / name
        path.write_bytes(data)
        if rng.random() < 0.5:
            return lambda: read_record_image(str(folder), record, options)
        return lambda: read_image_file(path, options)


def _archive(rng: random.Random, suffix: str, name: str, data: bytes) -> bytes:
    """A zip or tar file with the image, damaged in half of the cases."""
    buffer = io.BytesIO()
    if suffix == ".zip":
        with zipfile.ZipFile(buffer, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
            archive.writestr(name, data)
            archive.writestr("b.png", data)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if suffix == ".gz" else "w") as archive:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue() if rng.random() < 0.5 else mutate_bytes(rng, buffer.getvalue())
