"""Write small data sets in the layouts of Pascal VOC and Cityscapes, for tests of several packages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

Box = tuple[float, float, float, float]
VocObject = tuple[str, Box, int]  # class, (xmin, ymin, xmax, ymax) counted from 1, difficult
Outline = tuple[str, Sequence[tuple[int, int]]]  # label, points
# Label ids of the Cityscapes table.
IDS = {"out of roi": 3, "static": 4, "road": 7, "building": 11, "person": 24, "car": 26, "caravan": 29}


def voc_xml(objects: Sequence[VocObject], size: tuple[int, int], filename: str = "x.jpg") -> str:
    """Return the VOC XML of one image of `size` (width, height)."""
    lines = [f"<annotation><filename>{filename}</filename>"]
    lines.append(f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>")
    for name, box, difficult in objects:
        corners = "".join(
            f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        lines.append(
            f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox>"
            "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
        )
    return "\n".join([*lines, "</annotation>"])


def make_voc(
    root: Path, split: str, images: Mapping[str, Sequence[VocObject]], size: tuple[int, int] = (60, 40)
) -> Path:
    """Write `ImageSets/Main/<split>.txt`, Annotations and JPEGImages below `root`, return the list file.

    An object is a bright rectangle whose colour depends on its class.
    """
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, objects in images.items():
        (root / "Annotations" / f"{name}.xml").write_text(voc_xml(objects, size, f"{name}.jpg"))
        image = Image.new("RGB", size, (40, 40, 40))
        for word, box, _ in objects:
            colour = (255, 60 + 17 * len(word) % 190, 31 * len(word) % 250)
            ImageDraw.Draw(image).rectangle([side - 1 for side in box], fill=colour)
        image.save(root / "JPEGImages" / f"{name}.jpg")
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    path.write_text("".join(f"{name}\n" for name in images))
    return path


def id_map(outlines: Sequence[Outline], size: tuple[int, int]) -> np.ndarray:
    """Paint `outlines` one after another; instance ids int32 (h, w)."""
    canvas = Image.new("I", size, 0)
    counts: dict[str, int] = {}
    for label, points in outlines:
        single = label.removesuffix("group")
        number = IDS[single]
        if single == label and label in ("person", "car", "caravan"):
            number = number * 1000 + counts.setdefault(label, 0)
            counts[label] += 1
        ImageDraw.Draw(canvas).polygon(list(points), fill=number)
    return np.asarray(canvas)


def make_cityscapes(
    root: Path, split: str, images: Mapping[str, Sequence[Outline]], size: tuple[int, int] = (96, 64)
) -> None:
    """Write gtFine and leftImg8bit of `split` below `root`; images are named "<city>/<name>"."""
    for name, outlines in images.items():
        gt, left = root / "gtFine" / split / name, root / "leftImg8bit" / split / name
        gt.parent.mkdir(parents=True, exist_ok=True)
        left.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "imgHeight": size[1],
            "imgWidth": size[0],
            "objects": [{"label": label, "polygon": [list(p) for p in points]} for label, points in outlines],
        }
        Path(f"{gt}_gtFine_polygons.json").write_text(json.dumps(content))
        ids = id_map(outlines, size)
        Image.fromarray(ids.astype(np.uint16)).save(f"{gt}_gtFine_instanceIds.png")
        grey = (ids % 251).astype(np.uint8)
        Image.fromarray(np.stack([grey, 255 - grey, ids // 200 % 256], 2).astype(np.uint8)).save(
            f"{left}_leftImg8bit.png"
        )


def rectangle(x: int, y: int, w: int, h: int) -> list[tuple[int, int]]:
    """Return the points of a rectangle that covers w x h pixels when painted."""
    return [(x, y), (x + w - 1, y), (x + w - 1, y + h - 1), (x, y + h - 1)]
