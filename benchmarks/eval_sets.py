"""Synthetic annotation and result files for the evaluation benchmark, deterministic from a seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

WIDTH, HEIGHT = 640, 480
JITTERS = 5  # candidate shapes per object
RANDOM_SHAPES = 400  # shapes anywhere, shared by all images
FRACTION_NEAR = 0.6  # detections at an object


def write_set(
    folder: Path, *, images: int, categories: int, per_image: int, federated: bool, seed: int = 0
) -> None:
    """Write `truth.json` and `results_<iou type>.json` into `folder`.

    About 12 objects per image (star-shaped polygons) with categories in a long tail; `per_image`
    detections near objects or anywhere, shapes repeating within an image. `federated` (LVIS): frequencies,
    negative and not-exhaustive lists, about half the detections of listed categories, one result file
    `results.json` with box and mask. Otherwise (COCO) a few crowds, and one file per IoU type with only
    the box or only the mask, as pycocotools takes the area from a box that is there.
    """
    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, categories + 1)
    weights /= weights.sum()
    shared = [_shape(rng, *_sample_circle(rng)) for _ in range(RANDOM_SHAPES)]
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": _categories(categories)}
    names = ["results"] if federated else ["results_bbox", "results_segm"]
    lines: dict[str, list[str]] = {name: [] for name in names}
    for image in range(1, images + 1):
        objects, near = _objects(rng, image, weights, crowds=not federated)
        for annotation in objects:
            truth["annotations"].append(annotation | {"id": len(truth["annotations"]) + 1})
        record = {"id": image, "width": WIDTH, "height": HEIGHT}
        present = [annotation["category_id"] for annotation in objects]
        likely = np.array(present)
        if federated:
            negative = np.setdiff1d(rng.choice(categories, 9, p=weights) + 1, present)
            some = rng.choice(present, 2).tolist()
            record |= {"neg_category_ids": negative.tolist(), "not_exhaustive_category_ids": some}
            likely = np.concatenate([likely, negative])
        truth["images"].append(record)
        rows = _detections(rng, image, near, shared, likely, weights, per_image)
        for name in names:
            drop = {"results_bbox": "segmentation", "results_segm": "bbox"}.get(name)
            lines[name] += [json.dumps({k: v for k, v in row.items() if k != drop}) for row in rows]
    for name in names:
        (folder / f"{name}.json").write_text("[" + ", ".join(lines[name]) + "]")
    (folder / "truth.json").write_text(json.dumps(truth))


def _categories(count: int) -> list[dict[str, Any]]:
    edges = (0.34 * count, 0.72 * count)
    return [
        {"id": c + 1, "name": f"c{c + 1}", "frequency": "f" if c < edges[0] else "c" if c < edges[1] else "r"}
        for c in range(count)
    ]


def _sample_circle(rng: np.random.Generator) -> tuple[float, float, float]:
    """Sample centre and radius; radii cover all three area ranges."""
    return rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT), float(np.exp(rng.uniform(np.log(6), np.log(120))))


def _polygon(rng: np.random.Generator, x: float, y: float, radius: float) -> list[float]:
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(8, 25))))
    reach = radius * rng.uniform(0.7, 1.0, len(angles))
    points = np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], 1)
    return np.round(np.clip(points, 0, [WIDTH, HEIGHT]), 2).reshape(-1).tolist()


def _shape(rng: np.random.Generator, x: float, y: float, radius: float) -> dict[str, Any]:
    """Box and mask of a star-shaped detection."""
    rle = mask_utils.frPyObjects([_polygon(rng, x, y, radius)], HEIGHT, WIDTH)[0]
    box = [round(float(side) + float(rng.uniform(0, 1)), 2) for side in mask_utils.toBbox(rle)]
    return {"bbox": box, "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}}


def _objects(
    rng: np.random.Generator, image: int, weights: np.ndarray, crowds: bool
) -> tuple[list[dict[str, Any]], list[tuple[int, list[dict[str, Any]]]]]:
    """Annotations of one image without ids; category and candidate shapes of detections of each."""
    out, near = [], []
    for _ in range(int(rng.integers(6, 19))):
        circle = _sample_circle(rng)
        polygon = _polygon(rng, *circle)
        rle = mask_utils.frPyObjects([polygon], HEIGHT, WIDTH)[0]
        crowd = crowds and rng.random() < 0.02
        mask = {"size": rle["size"], "counts": rle["counts"].decode()} if crowd else [polygon]
        out.append(
            {
                "image_id": image,
                "category_id": int(rng.choice(len(weights), p=weights)) + 1,
                "bbox": mask_utils.toBbox(rle).tolist(),
                "area": float(mask_utils.area(rle)),
                "segmentation": mask,
                "iscrowd": int(crowd),
            }
        )
        shapes = [_shape(rng, *(np.array(circle) * rng.normal(1, 0.08, 3))) for _ in range(JITTERS)]
        near.append((out[-1]["category_id"], shapes))
    return out, near


def _detections(
    rng: np.random.Generator,
    image: int,
    near: list[tuple[int, list[dict[str, Any]]]],
    shared: list[dict[str, Any]],
    likely: np.ndarray,
    weights: np.ndarray,
    count: int,
) -> list[dict[str, Any]]:
    """Detections of one image, near its objects (category, candidate shapes) or anywhere."""
    anything = rng.choice(len(weights), count, p=weights) + 1
    rows = []
    for other in anything.tolist():
        category, shapes = near[int(rng.integers(len(near)))]
        if rng.random() >= FRACTION_NEAR:
            shapes = shared
        outcome = rng.random()
        if shapes is shared or outcome > 0.6:
            category = other if outcome > 0.5 else int(rng.choice(likely))
        shape = shapes[int(rng.integers(len(shapes)))]
        row = {"image_id": image, "category_id": category, "score": round(float(rng.random()), 4)}
        rows.append(row | shape)
    return rows
