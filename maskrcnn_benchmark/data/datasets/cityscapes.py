"""Cityscapes: fine annotations of a split, read into the form of COCO records (core spec, section 15)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as mask_utils

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile, Record
from maskrcnn_benchmark.data.datasets.cityscapes_labels import (
    INSTANCES,
    PARTED_VOID_IDS,
    THING_IDS,
    THING_NAMES,
    VOID_IDS,
    label_of,
)
from maskrcnn_benchmark.data.datasets.mask_regions import encode, region_rles
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json
from maskrcnn_benchmark.utils.progress import Progress

logger = logging.getLogger(__name__)
SUFFIXES = {"poly": "_gtFine_polygons.json", "mask": "_gtFine_instanceIds.png"}
Size = tuple[int, int]


def load_cityscapes(folder: str, form: str, limit: int = 0, prefix: str = "") -> AnnotationFile:
    """The objects of the eight classes in `<folder>/<city>/<image>_gtFine_...`, for example gtFine/val.

    form: "mask" reads the instance id images (masks without overlap, as the benchmark evaluates them),
    "poly" the polygons. limit: about so many images, evenly spread over the split; 0 = all. prefix: what
    `file_name` begins with; "" makes it relative to the split's folder of leftImg8bit.

    The records: category ids are those of the label table (person 24 ... bicycle 33). Group regions are
    `iscrowd`. An image has the run-length mask `void` of what does not count in evaluation.
    Raises DataError naming the folder or the file that is missing or wrong.
    """
    files = sorted(Path(folder).glob(f"*/*{SUFFIXES[form]}"))
    if not files:
        raise DataError(
            f"folder {folder} holds no <city>/*{SUFFIXES[form]}; name the folder of a split, like "
            "gtFine/train of the fine annotations"
        )
    if limit:
        files = files[:: len(files) // limit + 1]
    images: list[Record] = []
    annotations: list[Record] = []
    progress = Progress(len(files), f"reading {folder}", logger)
    for image_id, path in enumerate(files, start=1):
        size, void, found = (_read_polygons if form == "poly" else _read_ids)(path)
        stem = path.name.removesuffix(SUFFIXES[form])
        name = f"{prefix}{path.parent.name}/{stem}_leftImg8bit.png"
        image = {"id": image_id, "file_name": name, "width": size[0], "height": size[1]}
        images.append(image if void is None else image | {"void": void})
        for record in found:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id} | record)
        progress.update()
    categories = [{"id": number, "name": name} for number, name in zip(THING_IDS, THING_NAMES, strict=True)]
    raw = {"images": images, "annotations": annotations, "categories": categories}
    return AnnotationFile(raw, folder, "cityscapes")


def _record(category: int, group: bool, segmentation: Any, rle: dict[str, Any], box: list[float]) -> Record:
    """Annotation without ids; the area is counted in pixels of `rle`."""
    area = int(mask_utils.area(rle))
    shape = {"bbox": box, "area": area, "segmentation": segmentation}
    return {"category_id": category, "iscrowd": int(group)} | shape


def _read_ids(path: Path) -> tuple[Size, dict[str, Any] | None, list[Record]]:
    """Size, void region and objects of an instance id image."""
    try:
        with Image.open(path) as file:
            ids = np.asarray(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read: {error}; unpack the fine annotations again") from None
    if ids.ndim != 2:
        raise DataError(f"{path} has {ids.shape[2]} channels; expected an instance id image with one")
    found = []
    for number, rle in region_rles(ids).items():
        category, group = (number, True) if number < INSTANCES else (number // INSTANCES, False)
        if category in THING_IDS:
            box = [float(side) for side in mask_utils.toBbox(rle)]
            found.append(_record(category, group, rle, rle, box))
    return (ids.shape[1], ids.shape[0]), encode(np.isin(ids, VOID_IDS)), found


def _read_polygons(path: Path) -> tuple[Size, dict[str, Any] | None, list[Record]]:
    """Size, void region and objects of a polygon file."""
    try:
        content = read_json(path, "polygon file")
        size = int(content["imgWidth"]), int(content["imgHeight"])
        outlines = [(o["label"], o["polygon"]) for o in content["objects"] if not o.get("deleted")]
        points = [np.asarray(polygon, np.float64).reshape(-1, 2) for _, polygon in outlines]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"polygon file {path} is not of the fine annotations: {error!r}") from None
    labels = [_known(name, path) for name, _ in outlines]
    drawn = [(label, line) for label, line in zip(labels, points, strict=True) if label[0] >= 0]
    found = []
    for (category, group), line in drawn:
        if category not in THING_IDS or len(line) < 3:
            continue
        low = np.clip(line.min(0), 0, size)
        high = np.clip(line.max(0), -1, np.array(size) - 1)
        if (high < low).any():
            continue
        segmentation = [line.reshape(-1).tolist()]
        rle = mask_utils.merge(mask_utils.frPyObjects(segmentation, size[1], size[0]))
        found.append(_record(category, group, segmentation, rle, [*low.tolist(), *(high - low + 1).tolist()]))
    return size, _paint_void(drawn, size), found


def _known(name: Any, path: Path) -> tuple[int, bool]:
    """Label id and group flag of a name; DataError when it is not in the table."""
    label = label_of(str(name))
    if label is None:
        raise DataError(f"polygon file {path} has the unknown label {name!r}")
    return label


def _paint_void(drawn: Iterable[tuple[tuple[int, bool], np.ndarray]], size: Size) -> dict[str, Any] | None:
    """Where void labels are seen when the polygons are painted in their order; 0 where nothing is painted."""
    canvas = Image.new("L", size, 1)
    brush = ImageDraw.Draw(canvas)
    for (category, group), line in drawn:
        if len(line) > 1:
            whole = category in VOID_IDS and (group or category not in PARTED_VOID_IDS)
            brush.polygon([tuple(point) for point in line.tolist()], fill=int(whole))
    return encode(np.asarray(canvas) > 0)
