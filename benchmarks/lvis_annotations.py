"""Annotations with the counts of LVIS v0.5 (57k images, 694k objects, 1230 classes), without its images.

    python benchmarks/lvis_annotations.py COUNTS.json OUT.json [--scale 1.0]

COUNTS.json lists for every category id, name, image_count, instance_count and frequency. Every category gets
exactly its counts of images and objects; locations and outlines are random, from a seed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_benchmark.utils.files import atomic_path, read_json

IMAGES = 57263
WIDTH, HEIGHT = 640, 480
SHAPES = 4000
MEDIAN_POINTS = 28


def scaled_counts(path: str, scale: float) -> list[dict[str, Any]]:
    """The categories of a counts file, counts multiplied by `scale` (at least 1 image and object)."""
    categories = read_json(path, "category counts")
    for category in categories:
        category["image_count"] = max(1, round(category["image_count"] * scale))
        category["instance_count"] = max(category["image_count"], round(category["instance_count"] * scale))
    return categories


def _shapes(rng: np.random.Generator) -> list[str]:
    """JSON text of outlines with box and area, everything an annotation needs but its ids."""
    texts = []
    for _ in range(SHAPES):
        points = max(3, int(rng.lognormal(np.log(MEDIAN_POINTS), 0.6)))
        radius = np.exp(rng.uniform(np.log(6), np.log(150), 2))
        centre = rng.uniform(radius, np.array([WIDTH, HEIGHT]) - np.minimum(radius, 230))
        angle = np.sort(rng.uniform(0, 2 * np.pi, points))
        outline = centre + radius * rng.uniform(0.6, 1.0, (points, 1)) * np.c_[np.cos(angle), np.sin(angle)]
        outline = outline.clip(0, (WIDTH, HEIGHT)).round(2)
        low, size = outline.min(0), np.maximum(np.ptp(outline, axis=0), 2.0).round(2)
        record = {
            "segmentation": [outline.ravel().tolist()],
            "area": round(float(size.prod() * 0.7), 2),
            "bbox": [*low.tolist(), *size.tolist()],
        }
        texts.append(json.dumps(record)[1:])
    return texts


def write_annotations(counts: str, path: str | Path, scale: float = 1.0, seed: int = 0) -> None:
    """Write the file; `scale` shrinks images and counts alike."""
    rng = np.random.default_rng(seed)
    categories = scaled_counts(counts, scale)
    total = max(max(c["image_count"] for c in categories), round(IMAGES * scale))
    shapes = _shapes(rng)
    images, labels = [], []
    for category in categories:
        chosen = rng.choice(total, category["image_count"], replace=False)
        extra = rng.choice(chosen, category["instance_count"] - len(chosen))
        images += [chosen, extra]
        labels.append(np.full(category["instance_count"], category["id"]))
    image_ids, category_ids = np.concatenate(images) + 1, np.concatenate(labels)
    order = rng.permutation(len(image_ids))
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write('{"info": {"description": "synthetic"}, "categories": ')
        json.dump(categories, file)
        file.write(', "images": ')
        json.dump([_image(i) for i in range(1, total + 1)], file)
        file.write(', "annotations": [')
        for number, row in enumerate(order.tolist(), start=1):
            shape = shapes[int(rng.integers(SHAPES))]
            head = f'{{"id": {number}, "image_id": {image_ids[row]}, "category_id": {category_ids[row]}, '
            file.write((", " if number > 1 else "") + head + shape)
        file.write("]}")


def _image(number: int) -> dict[str, Any]:
    """An LVIS v0.5 image record."""
    name = f"{number:012d}.jpg"
    return {
        "id": number,
        "file_name": f"COCO_train2017_{name}",
        "coco_url": f"http://images.cocodataset.org/train2017/{name}",
        "width": WIDTH,
        "height": HEIGHT,
        "neg_category_ids": [1, 2, 3],
        "not_exhaustive_category_ids": [],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Annotations with the counts of LVIS v0.5.")
    parser.add_argument("counts")
    parser.add_argument("out")
    parser.add_argument("--scale", type=float, default=1.0)
    args = parser.parse_args()
    write_annotations(args.counts, args.out, args.scale)
