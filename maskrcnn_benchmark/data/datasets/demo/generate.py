"""Write the demo data set: images, train.json and val.json in LVIS v0.5 format."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn_benchmark.data.datasets.demo.categories import (
    MAX_CLASSES,
    MAX_OBJECTS,
    DemoCategory,
    demo_categories,
    frequency,
    tail_counts,
)
from maskrcnn_benchmark.data.datasets.demo.scene import draw_scene
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json, write_json
from maskrcnn_benchmark.utils.rng import derive_seed

MARKER = "demo.json"
FORMAT = 1  # to be increased when the same options give other images
NEGATIVES = 8  # categories per image that are listed as absent
Plan = list[list[DemoCategory]]
Report = Callable[[str], None]


@dataclass(frozen=True)
class DemoOptions:
    """Numbers of images, side in pixels, seed, number of classes: they determine every byte."""

    train: int = 600
    val: int = 120
    size: int = 128
    seed: int = 0
    classes: int = 24


def generate_demo(
    out: str | os.PathLike[str], options: DemoOptions | None = None, *, report: Report = print
) -> bool:
    """Make the data set in folder `out`; False when it exists already with the same options.

    Layout: train.json, val.json, images/train/*.jpg, images/val/*.jpg, and demo.json with the options. The
    complete folder is renamed to `out` at the end; an older demo folder is replaced.
    Raises DataError for any other folder that is not empty, and for too few images for the categories.
    """
    options = options or DemoOptions()
    target = Path(out)
    marker = {"format": FORMAT, **asdict(options)}
    _check(options)
    if (target / MARKER).is_file() and read_json(target / MARKER, "demo marker") == marker:
        return False
    if target.exists() and not (target / MARKER).is_file() and any(target.iterdir()):
        raise DataError(f"folder {target} is not empty and holds no demo data set; name another folder")
    partial = target.parent / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    categories = demo_categories(options.classes)
    train = _make_split("train", categories, options, partial, 1, report)
    val = _make_split("val", categories, options, partial, 1 + options.train, report)
    groups = {c["id"]: frequency(c["image_count"], options.train) for c in train["categories"]}
    for split, content in (("train", train), ("val", val)):
        for category in content["categories"]:
            category["frequency"] = groups[category["id"]]
        write_json(partial / f"{split}.json", content)
    write_json(partial / MARKER, marker)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    return True


def plan_images(counts: list[int], num_images: int, categories: list[DemoCategory], seed: int) -> Plan:
    """Distribute counts[r] objects of every rank r over the images, 1 to MAX_OBJECTS in each."""
    rng = np.random.default_rng(seed)
    objects = [category for category, count in zip(categories, counts, strict=True) for _ in range(count)]
    rng.shuffle(objects)
    plan: Plan = [[] for _ in range(num_images)]
    open_images = list(range(num_images))
    for i, category in enumerate(objects):
        image = i if i < num_images else open_images[rng.integers(len(open_images))]
        plan[image].append(category)
        if len(plan[image]) == MAX_OBJECTS:
            open_images.remove(image)
    return plan


def _check(options: DemoOptions) -> None:
    """Raise DataError for impossible options."""
    if not 2 <= options.classes <= MAX_CLASSES:
        raise DataError(f"--classes must lie in 2..{MAX_CLASSES}, got {options.classes}")
    if options.size < 48:
        raise DataError(f"--size must be at least 48 pixels, got {options.size}")
    for split in ("train", "val"):
        num_images = getattr(options, split)
        if num_images < 2 or sum(_counts(split, options)) > MAX_OBJECTS * (num_images - 1):
            raise DataError(f"--{split} {num_images} images are too few for {options.classes} categories")


def _counts(split: str, options: DemoOptions) -> list[int]:
    """Number of objects of every rank: a long tail in training, equal numbers in validation."""
    if split == "train":
        return tail_counts(options.classes, options.train)
    return [max(2, round(3.2 * options.val / options.classes))] * options.classes


def _make_split(
    split: str,
    categories: list[DemoCategory],
    options: DemoOptions,
    folder: Path,
    first_id: int,
    report: Report,
) -> dict[str, Any]:
    """Draw and save the images of one split; return its LVIS content, without the frequencies."""
    num_images = getattr(options, split)
    plan = plan_images(
        _counts(split, options), num_images - 1, categories, derive_seed(options.seed, "demo", split)
    )
    plan.insert(num_images // 2, [])  # one image without any object
    images, annotations = [], []
    image_dir = folder / "images" / split
    image_dir.mkdir(parents=True)
    for index, planned in enumerate(plan):
        image_id = first_id + index
        rng = np.random.default_rng(derive_seed(options.seed, "demo", split, index))
        image, placed = draw_scene(planned, options.size, rng)
        name = f"{image_id:012d}.jpg"
        image.save(image_dir / name, quality=92)
        for item in placed:
            annotations.append(
                {"id": 0, "image_id": image_id, "category_id": item.category.id, **item.annotation()}
            )
        present = {item.category.id for item in placed}
        absent = [category.id for category in categories if category.id not in present]
        negatives = rng.choice(absent, min(NEGATIVES, len(absent)), replace=False)
        images.append(_image_record(image_id, name, options.size, sorted(negatives.tolist())))
        if (index + 1) % 200 == 0 or index + 1 == num_images:
            report(f"demo {split} images: {index + 1}/{num_images}")
    for index, annotation in enumerate(annotations):
        annotation["id"] = first_id * 100 + index
    info = {
        "description": f"generated demo data, {split}",
        "version": str(FORMAT),
        "options": asdict(options),
    }
    return {
        "info": info,
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": _category_records(categories, annotations),
    }


def _image_record(image_id: int, name: str, size: int, negatives: list[int]) -> dict[str, Any]:
    """LVIS v0.5 image record; all objects of an image are annotated, so nothing is "not exhaustive"."""
    return {
        "id": image_id,
        "file_name": name,
        "width": size,
        "height": size,
        "neg_category_ids": negatives,
        "not_exhaustive_category_ids": [],
    }


def _category_records(
    categories: list[DemoCategory], annotations: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """LVIS category records by id, with the counts of this split."""
    records = []
    for category in sorted(categories, key=lambda c: c.id):
        image_ids = [ann["image_id"] for ann in annotations if ann["category_id"] == category.id]
        records.append(
            {
                "id": category.id,
                "name": category.name,
                "synset": f"{category.name}.n.01",
                "synonyms": [category.name, f"{category.texture} {category.shape}"],
                "def": f"a {category.shape} with a {category.texture} surface",
                "image_count": len(set(image_ids)),
                "instance_count": len(image_ids),
                "frequency": "f",
            }
        )
    return records
