"""Look at annotated images: find some for given classes, draw their objects, lay them out on a sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.coco import DetectionDataset
from maskrcnn_benchmark.data.datasets.images import image_paths, read_image
from maskrcnn_benchmark.data.transforms import Compose
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.registry import close_matches
from maskrcnn_benchmark.visualize.colors import Color, load_font
from maskrcnn_benchmark.visualize.draw import draw_detections

_INK: Color = (40, 40, 40)
_GAP, _CAPTION = 10, 24


def truth_dataset(
    annotations: AnnotationFile, img_dir: str, category_order: Sequence[int]
) -> DetectionDataset:
    """All images of a file with the objects of some categories; label = 1 + place in the order."""
    return DetectionDataset(
        annotations,
        img_dir,
        transforms=Compose([]),
        train=False,
        category_order=category_order,
        keep_images="all",
    )


def label_named(dataset: DetectionDataset, name: str) -> int:
    """The label of the class called `name`; DataError with names that resemble it when there is none."""
    known = dataset.class_names[1:]
    if name not in known:
        near = close_matches(name, known) or known[:3]
        raise DataError(f"{dataset.annotations.path or 'the data'}: no class {name!r}; try {', '.join(near)}")
    return 1 + known.index(name)


def images_of(dataset: DetectionDataset, label: int) -> list[int]:
    """Indices of the images with an object of class `label` (no crowd), ascending."""
    columns = dataset.annotations.columns
    chosen = (columns.category_ids == dataset.label_to_category[label]) & ~columns.crowd
    ids = np.unique(columns.image_ids[chosen])
    return np.flatnonzero(np.isin(dataset.image_ids, ids)).tolist()


def sample_images(dataset: DetectionDataset, labels: Sequence[int], count: int = 6) -> list[tuple[int, int]]:
    """Up to `count` (label, image index), sorted; classes spread evenly over `labels`.

    No image comes twice, and only images whose file exists are taken. A class without one leaves its
    place to others, and where there are fewer classes than places they get several images each.
    """
    spread = [number * len(labels) // count for number in range(min(count, len(labels)))]
    order = list(dict.fromkeys([*spread, *range(len(labels))]))
    waiting = {position: _existing(dataset, labels[position]) for position in order}
    found: dict[int, int] = {}
    while waiting and len(found) < count:
        for position in [p for p in order if p in waiting]:
            index = next((i for i in waiting[position] if i not in found), None)
            if index is None:
                del waiting[position]
                continue
            found[index] = labels[position]
            if len(found) == count:
                break
    return sorted((label, index) for index, label in found.items())


def draw_truth(
    dataset: DetectionDataset, index: int, labels: Sequence[int] | None = None, width: int = 420
) -> Image.Image:
    """An image, `width` pixels wide, with its annotated objects: all, or those of some classes."""
    record = dataset.get_img_info(index)
    target = dataset.target(index)
    if labels is not None:
        target = target[np.flatnonzero(np.isin(target.get_field("labels").numpy(), labels)).tolist()]
    drawn = BoxList(target.bbox, target.size)
    drawn.add_field("labels", target.get_field("labels"))
    if target.has_field("masks"):
        drawn.add_field("masks", target.get_field("masks").to_bitmaps())
    image = read_image(dataset.img_dir, record)
    return draw_detections(image, drawn, dataset.class_names, scale=width / image.width)


def draw_samples(
    dataset: DetectionDataset, samples: Sequence[tuple[int, int]], columns: int = 3, width: int = 320
) -> Image.Image:
    """A sheet of (label, image index) pairs; of every image only the objects of its class are drawn.

    Raises:
        DataError: when there is none: no image file of these classes exists.
    """
    if not samples:
        raise DataError(f"no image of these classes is in {dataset.img_dir}; check the image folder")
    cells = [
        (f"{dataset.class_names[label]} (label {label})", draw_truth(dataset, index, [label], width))
        for label, index in samples
    ]
    return draw_sheet(cells, columns)


def draw_sheet(cells: Sequence[tuple[str, Image.Image]], columns: int = 3) -> Image.Image:
    """Images with a caption above each, in rows of `columns`, each as high as its highest image."""
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    width = max(image.width for _, image in cells) + _GAP
    heights = [max(image.height for _, image in row) + _CAPTION + _GAP for row in rows]
    used = min(columns, len(cells))
    sheet = Image.new("RGB", (width * used + _GAP, sum(heights) + _GAP), (255, 255, 255))
    pen, font, top = ImageDraw.Draw(sheet), load_font(15), _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, (caption, image) in enumerate(row):
            left = _GAP + column * width
            pen.text((left, top + _CAPTION / 2), caption, fill=_INK, font=font, anchor="lm")
            sheet.paste(image, (left, top + _CAPTION))
        top += height
    return sheet


def _existing(dataset: DetectionDataset, label: int) -> Iterator[int]:
    """Indices of the images of a class whose file exists."""
    for index in images_of(dataset, label):
        if any(Path(p).is_file() for p in image_paths(dataset.img_dir, dataset.get_img_info(index))):
            yield index
