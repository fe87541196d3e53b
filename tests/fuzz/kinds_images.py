"""Damaged images in every format that Pillow writes, opened as training and prediction open them."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

from mutations import mutate_bytes
from PIL import Image

from maskrcnn_benchmark.data.datasets.images import read_record_image
from maskrcnn_benchmark.engine.frames import read_image_file

SIZE = (12, 9)
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
        path = folder / name
        path.write_bytes(data)
        record = {"id": 1, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
        if rng.random() < 0.5:
            return lambda: read_record_image(str(folder), record)
        return lambda: read_image_file(path)
