"""Browse annotated images: select some by class, draw their objects, arrange them in a grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.detection import DetectionDataset
from maskrcnn_benchmark.data.datasets.image_decoding import ImageOptions
from maskrcnn_benchmark.data.transforms import Compose
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.registry import close_matches
from maskrcnn_benchmark.visualize.colors import Color, load_font
from maskrcnn_benchmark.visualize.draw import draw_detections

_INK: Color = (40, 40, 40)
_GAP, _CAPTION = 10, 24


def ground_truth_dataset(
    annotations: AnnotationFile,
    img_dir: str,
    category_order: Sequence[int],
    image_options: ImageOptions | None = None,
) -> DetectionDataset:
    """Build a data set of all images of a file and the objects of some categories.

    The label of a category is 1 + its index in `category_order`. `image_options`: how image files become RGB.
    """
    return DetectionDataset(
        annotations,
        img_dir,
        transforms=Compose([]),
        train=False,
        category_order=category_order,
        keep_images="all",
        image_options=image_options,
    )


def label_of_class(dataset: DetectionDataset, name: str) -> int:
    """Return the label of the class `name`.

    Raises:
        DataError: there is no such class; the message gives similar names.
    """
    known = dataset.class_names[1:]
    if name not in known:
        near = close_matches(name, known) or known[:3]
        raise DataError(f"{dataset.annotations.path or 'the data'}: no class {name!r}; try {', '.join(near)}")
    return 1 + known.index(name)


def images_of_class(dataset: DetectionDataset, label: int) -> list[int]:
    """Return the indices of the images with an object of class `label` (crowds do not count), ascending."""
    columns = dataset.annotations.columns
    chosen = (columns.category_ids == dataset.label_to_category[label]) & ~columns.crowd
    ids = np.unique(columns.image_ids[chosen])
    return np.flatnonzero(np.isin(dataset.image_ids, ids)).tolist()


def sample_images(dataset: DetectionDataset, labels: Sequence[int], count: int = 6) -> list[tuple[int, int]]:
    """Select up to `count` images of classes that are spaced evenly over `labels`.

    No image is selected twice, and only images whose file exists. Where classes have no image, or are fewer
    than `count`, others get several images.

    Returns:
        (label, image index) pairs, sorted.
    """
    even = [i * len(labels) // count for i in range(min(count, len(labels)))]
    order = list(dict.fromkeys([*even, *range(len(labels))]))
    candidates = {position: _existing_images(dataset, labels[position]) for position in order}
    selected: dict[int, int] = {}
    while candidates and len(selected) < count:
        for position in [p for p in order if p in candidates]:
            index = next((i for i in candidates[position] if i not in selected), None)
            if index is None:
                del candidates[position]
                continue
            selected[index] = labels[position]
            if len(selected) == count:
                break
    return sorted((label, index) for index, label in selected.items())


def draw_ground_truth(
    dataset: DetectionDataset, index: int, labels: Sequence[int] | None = None, width: int = 420
) -> Image.Image:
    """Draw the annotated objects of an image, all or those of some classes, at a width of `width` pixels."""
    record = dataset.get_img_info(index)
    target = dataset.target(index)
    if labels is not None:
        target = target[np.flatnonzero(np.isin(target.get_field("labels").numpy(), labels)).tolist()]
    boxes = BoxList(target.bbox, target.size)
    boxes.add_field("labels", target.get_field("labels"))
    if target.has_field("masks"):
        boxes.add_field("masks", target.get_field("masks").to_bitmaps())
    image = dataset.images.read(record)
    return draw_detections(image, boxes, dataset.class_names, scale=width / image.width)


def draw_samples(
    dataset: DetectionDataset, samples: Sequence[tuple[int, int]], columns: int = 3, width: int = 320
) -> Image.Image:
    """Draw (label, image index) pairs in a grid; of every image only the objects of its class.

    Raises:
        DataError: there are no samples, since no image file of these classes exists.
    """
    if not samples:
        raise DataError(f"no image of these classes is in {dataset.img_dir}; check the image folder")
    captioned = [
        (f"{dataset.class_names[label]} (label {label})", draw_ground_truth(dataset, index, [label], width))
        for label, index in samples
    ]
    return draw_grid(captioned, columns)


def draw_grid(images: Sequence[tuple[str, Image.Image]], columns: int = 3) -> Image.Image:
    """Arrange (caption, image) pairs in rows of `columns`; a row is as high as its highest image."""
    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    width = max(image.width for _, image in images) + _GAP
    heights = [max(image.height for _, image in row) + _CAPTION + _GAP for row in rows]
    used_columns = min(columns, len(images))
    grid = Image.new("RGB", (width * used_columns + _GAP, sum(heights) + _GAP), (255, 255, 255))
    pen, font, top = ImageDraw.Draw(grid), load_font(15), _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, (caption, image) in enumerate(row):
            left = _GAP + column * width
            pen.text((left, top + _CAPTION / 2), caption, fill=_INK, font=font, anchor="lm")
            grid.paste(image, (left, top + _CAPTION))
        top += height
    return grid


def _existing_images(dataset: DetectionDataset, label: int) -> Iterator[int]:
    """Yield the indices of the images of a class whose file exists."""
    for index in images_of_class(dataset, label):
        if dataset.images.exists(dataset.get_img_info(index)):
            yield index
