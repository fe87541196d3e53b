"""Selecting and drawing annotated images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.detection import DetectionDataset
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.visualize.browse import (
    draw_grid,
    draw_ground_truth,
    draw_samples,
    ground_truth_dataset,
    images_of_class,
    label_of_class,
    sample_images,
)
from maskrcnn_benchmark.visualize.colors import label_color

SIZE = (40, 30)


def annotation(ann_id: int, image: int, category: int, crowd: int = 0) -> dict[str, Any]:
    """A square of ten pixels."""
    x, y = 4, 6
    outline = [x, y, x + 10, y, x + 10, y + 10, x, y + 10]
    return {
        "id": ann_id,
        "image_id": image,
        "category_id": category,
        "bbox": [x, y, 10, 10],
        "area": 100,
        "iscrowd": crowd,
        "segmentation": [outline],
    }


@pytest.fixture
def dataset(tmp_path: Path) -> DetectionDataset:
    """Images 1..5, 3 without file; category 7 in 1, 2, 3, category 5 in 2, 4 and as a crowd in 5."""
    images = [{"id": i, "file_name": f"{i}.png", "width": SIZE[0], "height": SIZE[1]} for i in range(1, 6)]
    for i in (1, 2, 4, 5):
        Image.new("RGB", SIZE, (255, 255, 255)).save(tmp_path / f"{i}.png")
    pairs = [(1, 7), (2, 7), (3, 7), (2, 5), (4, 5)]
    anns = [annotation(n, image, category) for n, (image, category) in enumerate(pairs, start=1)]
    anns.append(annotation(9, 5, 5, crowd=1))
    categories = [{"id": 5, "name": "five"}, {"id": 7, "name": "seven"}, {"id": 8, "name": "eight"}]
    raw = {"images": images, "annotations": anns, "categories": categories}
    return ground_truth_dataset(AnnotationFile(raw), str(tmp_path), [7, 5, 8])


def test_images_of_a_class(dataset: DetectionDataset) -> None:
    assert [images_of_class(dataset, label) for label in (1, 2, 3)] == [[0, 1, 2], [1, 3], []]


def test_classes_by_name(dataset: DetectionDataset) -> None:
    assert label_of_class(dataset, "five") == 2
    with pytest.raises(DataError, match=r"no class 'fiv'; try five"):
        label_of_class(dataset, "fiv")


def test_samples_spread_over_classes_and_images(dataset: DetectionDataset) -> None:
    assert sample_images(dataset, [1, 2, 3], 2) == [(1, 0), (2, 1)]
    assert sample_images(dataset, [1, 2, 3], 6) == [(1, 0), (2, 1), (2, 3)]
    assert sample_images(dataset, [1], 6) == [(1, 0), (1, 1)]
    assert sample_images(dataset, [3], 6) == sample_images(dataset, [], 6) == []


def test_only_the_given_classes_are_drawn(dataset: DetectionDataset) -> None:
    def colors(labels: list[int] | None) -> set[tuple[int, ...]]:
        pixels = np.asarray(draw_ground_truth(dataset, 1, labels, width=200)).reshape(-1, 3)
        return {tuple(p) for p in pixels.tolist()}

    assert draw_ground_truth(dataset, 1, width=200).size == (200, 150)
    assert label_color(1) in colors([1]) and label_color(2) not in colors([1])
    assert label_color(2) in colors(None)
    assert colors([3]) == {(255, 255, 255)}


def test_grids(dataset: DetectionDataset) -> None:
    three = draw_samples(dataset, [(1, 0), (2, 1), (2, 3)], columns=2, width=100)
    two = draw_samples(dataset, [(1, 0), (2, 1)], columns=2, width=100)
    assert three.width == two.width == 2 * 100 + 3 * 10 and three.height > two.height
    assert draw_grid([("a", Image.new("RGB", (50, 20)))]).width == 70
    with pytest.raises(DataError, match="no image of these classes"):
        draw_samples(dataset, [])
