"""A small annotation file with images for the tests of the data package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.detection import DetectionDataset
from maskrcnn_benchmark.data.transforms import Compose, Resize, SizeRule, ToNormalizedTensor

KEEP = Compose([Resize(SizeRule((40,), 100)), ToNormalizedTensor((0, 0, 0), (1, 1, 1), True)])


def rectangle(x: float, y: float, w: float, h: float) -> list[list[float]]:
    """One rectangular polygon."""
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def make_annotation(
    number: int, image: int, category: int, box: tuple[float, ...], **more: Any
) -> dict[str, Any]:
    """A COCO annotation with a rectangular polygon."""
    entry = {"id": number, "image_id": image, "category_id": category, "bbox": list(box), "iscrowd": 0}
    return {**entry, "segmentation": rectangle(*box), "area": box[2] * box[3], **more}


@pytest.fixture
def annotation() -> Callable[..., dict[str, Any]]:
    """`annotation(id, image, category, box, **more)`."""
    return make_annotation


@pytest.fixture
def raw(tmp_path: Path) -> dict[str, Any]:
    """Five 50x40 images: two objects; one and a crowd; only degenerate; none; one partly outside (grey)."""
    rng = np.random.default_rng(0)
    images = []
    for number in (14, 11, 12, 13, 15):
        pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        image = Image.fromarray(pixels[..., 0] if number == 15 else pixels)
        image.save(tmp_path / f"{number}.jpg")
        images.append({"id": number, "width": 50, "height": 40, "file_name": f"{number}.jpg"})
    return {
        "images": images,
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 5, "name": "cow"}],
        "annotations": [
            make_annotation(1, 11, 3, (5, 6, 20, 10)),
            make_annotation(2, 11, 7, (10, 20, 15, 15)),
            make_annotation(3, 12, 5, (0, 0, 10, 10)),
            make_annotation(
                4, 12, 5, (20, 20, 10, 10), iscrowd=1, segmentation={"size": [40, 50], "counts": [2000]}
            ),
            make_annotation(5, 13, 7, (4, 4, 1, 12)),
            make_annotation(6, 15, 3, (40, 30, 30, 30)),
            make_annotation(7, 15, 3, (60, 60, 5, 5)),
        ],
    }


@pytest.fixture
def make(raw: dict[str, Any], tmp_path: Path) -> Callable[..., DetectionDataset]:
    """`make(other_raw=None, **options)`: a training set of the small file without random transforms."""

    def build(other: dict[str, Any] | None = None, **options: Any) -> DetectionDataset:
        settings: dict[str, Any] = {"transforms": KEEP, "train": True, **options}
        return DetectionDataset(AnnotationFile(other or raw, "ann.json"), str(tmp_path), **settings)

    return build
