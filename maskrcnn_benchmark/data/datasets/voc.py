"""Pascal VOC: one XML file per image, read into COCO records."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile, Record
from maskrcnn_benchmark.data.records.values import read_flag
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_text

# fmt: off
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
MAX_BYTES = 2**24
"""An XML file of more than this describes no image."""


def load_voc(list_file: str, classes: Sequence[str] = ()) -> AnnotationFile:
    """Read the images that a text file lists, with the objects of their XML files.

    list_file: `<root>/ImageSets/Main/<split>.txt`, an image name per line; the XML files lie in
    `<root>/Annotations`. classes: names in the order of their labels, () for the 20 of Pascal VOC.

    The records: category ids 1, 2, ...; boxes x, y, width, height counted from 0 with both ends included
    (width = xmax - xmin + 1); difficult objects are `iscrowd` and `ignore`, so that training drops them
    and they count neither way in evaluation. Image ids are the digits of the names where these are unique
    (2008_000001: 2008000001), else 1, 2, ... in the order of the list.

    Raises DataError naming the file when one is missing, is not valid XML, has a class that is not in
    `classes`, or an impossible box or size.
    """
    names = _read_list(list_file)
    folder = Path(os.path.normpath(os.path.join(list_file, "../../../Annotations")))
    if not folder.is_dir():
        raise DataError(
            f"folder {folder} does not exist: the XML files of {list_file} belong beside ImageSets; "
            "datasets/README.md shows the layout"
        )
    classes = tuple(classes) or VOC_CLASSES
    labels = {name: label for label, name in enumerate(classes, start=1)}
    images: list[Record] = []
    annotations: list[Record] = []
    for image_id, name in zip(_image_ids(names), names, strict=True):
        path = folder / f"{name}.xml"
        root = read_xml(path)
        images.append(_image(root, path, image_id))
        for node in root.findall("object"):
            annotations.append(_object(node, path, labels, image_id, len(annotations) + 1))
    categories = [{"id": label, "name": name} for name, label in labels.items()]
    raw = {"images": images, "annotations": annotations, "categories": categories}
    return AnnotationFile(raw, list_file, "voc")


def read_xml(path: Path) -> ElementTree.Element:
    """Read the root of an XML file in UTF-8 without document type.

    A document type can declare entities, by which a small file grows without bound or reads other files; a
    file with one is refused before it is parsed. Raises DataError naming the file.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} has more than {MAX_BYTES >> 20} MiB; expected the XML of one image")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(
            f"annotation {path} does not exist; add it or remove {path.stem} from the list of the split"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: byte {error.start}; convert it to UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise DataError(f"{str(path)[:80]!r} is no file name; correct the list of the split") from None
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(f"{path} declares a document type, which annotations do not need; remove it")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid XML: {error}; correct the file") from None


def _read_list(path: str) -> list[str]:
    """Read the image names of a split; DataError when there is no such file or it is no list of names."""
    if not os.path.exists(path):
        raise DataError(
            f"list of images {path} does not exist; datasets/README.md shows the layout of Pascal VOC"
        )
    lines = read_text(path, "list of images").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    seen: set[str] = set()
    for name in names:
        if len(name.split()) > 1 or name in seen:
            what = "occurs twice" if name in seen else "is more than a name; take the list of all classes"
            raise DataError(f"list of images {path}: {name!r} {what}")
        seen.add(name)
    return names


def _image_ids(names: Sequence[str]) -> list[int]:
    """The digits of the names, or 1, 2, ... where two names have equal digits or one has none."""
    digits = [re.sub(r"\D", "", name) for name in names]
    ids = [int(text) if 0 < len(text) < 19 else -1 for text in digits]
    return ids if -1 not in ids and len(set(ids)) == len(ids) else list(range(1, len(names) + 1))


def _image(root: ElementTree.Element, path: Path, image_id: int) -> Record:
    """The record of the image; its file name is the stem of the XML file and the suffix of `filename`."""
    suffix = os.path.splitext((root.findtext("filename") or "").strip())[1] or ".jpg"
    sides = [_number(root, f"size/{side}", path, "the image") for side in ("width", "height")]
    if min(sides) < 1 or any(side != int(side) for side in sides):
        raise DataError(f"{path}: the image has the size {sides[0]:g} x {sides[1]:g}; correct <size>")
    size: dict[str, Any] = {"width": int(sides[0]), "height": int(sides[1])}
    return {"id": image_id, "file_name": f"{path.stem}{suffix}", **size}


def _object(
    node: ElementTree.Element, path: Path, labels: dict[str, int], image_id: int, annotation_id: int
) -> Record:
    """The record of one <object>."""
    name = (node.findtext("name") or "").strip()
    if name not in labels:
        raise DataError(
            f"{path}: unknown class {name!r}; known: {', '.join(labels)}; name your own under "
            "DATASETS.REGISTER with CLASSES"
        )
    left, top, right, bottom = (
        _number(node, f"bndbox/{key}", path, f"object {name!r}") for key in ("xmin", "ymin", "xmax", "ymax")
    )
    if right < left or bottom < top:
        raise DataError(
            f"{path}: object {name!r} has the box {left:g}, {top:g}, {right:g}, {bottom:g}; expected xmin <= "
            "xmax and ymin <= ymax"
        )
    width, height = right - left + 1, bottom - top + 1
    try:
        difficult = int(read_flag((node.findtext("difficult") or "").strip())[0])
    except ValueError as error:
        raise DataError(f"{path}: object {name!r} has <difficult> {error}") from None
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": labels[name],
        "bbox": [left - 1, top - 1, width, height],
        "area": width * height,
        "iscrowd": difficult,
        "ignore": difficult,
    }


def _number(node: ElementTree.Element, key: str, path: Path, what: str) -> float:
    """Read the finite number at `key` below `node`; DataError when it is missing or none."""
    text = node.findtext(key)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path}: {what} has no number in <{key.replace('/', '><')}>, found {text!r}")
    return value
