"""Cityscapes: the fine annotations of a split as COCO records, the label table, and RLE of id images."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from pycocotools import mask as mask_utils

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile, Record
from maskrcnn_benchmark.data.datasets.image_decoding import ImageError, read_samples
from maskrcnn_benchmark.data.records.values import is_number, read_flag, shown
from maskrcnn_benchmark.structures.polygons import MAX_COORDINATE
from maskrcnn_benchmark.structures.rle import rle_from_polygons
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json
from maskrcnn_benchmark.utils.progress import Progress

logger = logging.getLogger(__name__)
SUFFIXES = {"poly": "_gtFine_polygons.json", "mask": "_gtFine_instanceIds.png"}
Size = tuple[int, int]
MAX_PIXELS = 2**28
"""Of an image of Cityscapes, whose void regions are rendered when it is read."""
# Ids of all labels by name (cityscapesScripts, helpers/labels.py). A license plate is never rendered.
# fmt: off
_NAMES = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road",
    "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel",
    "pole", "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider",
    "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
)
# fmt: on
LABEL_IDS = {name: number for number, name in enumerate(_NAMES)} | {"license plate": -1}
# The classes with instances, in the order of their labels (1 to 8).
THING_NAMES = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
THING_IDS = tuple(LABEL_IDS[name] for name in THING_NAMES)
# Regions of these ids are ignored in evaluation.
VOID_IDS = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
# parity: single objects of these have instance ids, which the official evaluation does not ignore.
PARTED_VOID_IDS = (29, 30)
# In instance id images an object has the id INSTANCES * label id + its index; a smaller id is a region of a
# class without instances, or a group of objects that are not separated.
INSTANCES = 1000


def load_cityscapes(folder: str, form: str, limit: int = 0, prefix: str = "") -> AnnotationFile:
    """Read the objects of the eight classes in `<folder>/<city>/<image>_gtFine_...`, for example gtFine/val.

    Args:
        form: "mask" reads the instance id images (disjoint masks, as the benchmark evaluates them), "poly"
            the polygons.
        limit: about so many images at even distances; 0 = all.
        prefix: of `file_name`; "" makes it relative to the folder of the split in leftImg8bit.

    In the records, category ids are those of the label table (person 24 ... bicycle 33), boxes are x, y,
    width, height in pixels, group regions are `iscrowd`. An image has the run-length mask `void` of what
    evaluation ignores.

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
        size, void, objects = (_read_polygons if form == "poly" else _read_ids)(path)
        stem = path.name.removesuffix(SUFFIXES[form])
        name = f"{prefix}{path.parent.name}/{stem}_leftImg8bit.png"
        image = {"id": image_id, "file_name": name, "width": size[0], "height": size[1]}
        images.append(image if void is None else image | {"void": void})
        for record in objects:
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
        ids = read_samples(path)
    except ImageError as error:
        raise DataError(f"{path} cannot be read: {error}; unpack the fine annotations again") from None
    if ids.ndim != 2:
        raise DataError(f"{path} has {ids.shape[2]} channels; expected an instance id image with one")
    objects = []
    for region, rle in region_rles(ids).items():
        category, group = (region, True) if region < INSTANCES else (region // INSTANCES, False)
        if category in THING_IDS:
            box = [float(side) for side in mask_utils.toBbox(rle)]
            objects.append(_record(category, group, rle, rle, box))
    return (ids.shape[1], ids.shape[0]), encode_mask(np.isin(ids, VOID_IDS)), objects


def _read_polygons(path: Path) -> tuple[Size, dict[str, Any] | None, list[Record]]:
    """Size, void region and objects of a polygon file."""
    try:
        content = read_json(path, "polygon file")
        size = int(content["imgWidth"]), int(content["imgHeight"])
        kept = [o for o in content["objects"] if not read_flag(o.get("deleted", 0))[0]]
        outlines = [(o["label"], o["polygon"]) for o in kept]
        points = [_points(polygon) for _, polygon in outlines]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"polygon file {path} is none of the fine annotations: {error!r}") from None
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"polygon file {path} has the size {size[0]} x {size[1]}, which no image has")
    if not all((np.abs(line) <= MAX_COORDINATE).all() for line in points):
        raise DataError(
            f"polygon file {path} has coordinates that are not finite or beyond {MAX_COORDINATE} pixels"
        )
    labels = [_known(name, path) for name, _ in outlines]
    rendered = [(label, line) for label, line in zip(labels, points, strict=True) if label[0] >= 0]
    objects = []
    for (category, group), line in rendered:
        if category not in THING_IDS or len(line) < 3:
            continue
        low = np.clip(line.min(0), 0, size)
        high = np.clip(line.max(0), -1, np.array(size) - 1)
        if (high < low).any():
            continue
        segmentation = [line.reshape(-1).tolist()]
        rle = rle_from_polygons([torch.from_numpy(line).reshape(-1)], size[1], size[0])
        objects.append(
            _record(category, group, segmentation, rle, [*low.tolist(), *(high - low + 1).tolist()])
        )
    return size, _render_void(rendered, size), objects


def _points(polygon: Any) -> np.ndarray:
    """Points of a list of pairs [x, y], float64 (N, 2); TypeError or ValueError for anything else."""
    if not all(len(point) == 2 and all(map(is_number, point)) for point in polygon):
        raise ValueError(f"a polygon that is not a list of points [x, y]: {shown(polygon)}")
    return np.array(polygon, np.float64).reshape(-1, 2)


def _known(name: Any, path: Path) -> tuple[int, bool]:
    """Label id and group flag of a name; DataError when it is not in the table."""
    label = label_of(str(name))
    if label is None:
        raise DataError(f"polygon file {path} has the unknown label {name!r}")
    return label


def _render_void(
    rendered: Iterable[tuple[tuple[int, bool], np.ndarray]], size: Size
) -> dict[str, Any] | None:
    """Encode where void labels are visible when the polygons are rendered in their order."""
    canvas = Image.new("L", size, 1)
    brush = ImageDraw.Draw(canvas)
    for (category, group), line in rendered:
        if len(line) > 1:
            whole = category in VOID_IDS and (group or category not in PARTED_VOID_IDS)
            brush.polygon([tuple(point) for point in line.tolist()], fill=int(whole))
    return encode_mask(np.asarray(canvas) > 0)


def label_of(name: str) -> tuple[int, bool] | None:
    """Return (id, whether it is a group) of a label such as "car" or "cargroup"; None when it is unknown."""
    if name in LABEL_IDS:
        return LABEL_IDS[name], False
    single = name.removesuffix("group")
    return (LABEL_IDS[single], True) if single in LABEL_IDS and single != name else None


def region_rles(ids: np.ndarray) -> dict[int, dict[str, Any]]:
    """Encode the region of every id of an integer map (H, W) as COCO RLE, counts as text, ids ascending.

    The runs of all regions are found together, so that the time hardly depends on the number of regions.
    """
    height, width = ids.shape
    column_wise = ids.T.reshape(-1)
    starts = np.flatnonzero(np.r_[True, column_wise[1:] != column_wise[:-1]][: column_wise.size])
    ends = np.append(starts[1:], column_wise.size)
    owners = column_wise[starts]
    order = np.argsort(owners, kind="stable")
    regions, firsts = np.unique(owners[order], return_index=True)
    return {
        int(region): _from_runs(starts[rows], ends[rows], height, width)
        for region, rows in zip(regions, np.split(order, firsts[1:]), strict=True)
    }


def encode_mask(mask: np.ndarray) -> dict[str, Any] | None:
    """Encode a bool mask (H, W) as COCO RLE with counts as text; None for an empty one."""
    return region_rles(mask.astype(np.uint8)).get(1)


def _from_runs(starts: np.ndarray, ends: np.ndarray, height: int, width: int) -> dict[str, Any]:
    """Encode the pixels starts[i]:ends[i], counted down the columns of a mask (height, width)."""
    bounds = np.stack([starts, ends], axis=1).reshape(-1)
    counts = np.diff(bounds, prepend=0, append=height * width).tolist()
    if not counts[-1]:
        counts.pop()
    rle = mask_utils.frPyObjects({"counts": counts, "size": [height, width]}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
