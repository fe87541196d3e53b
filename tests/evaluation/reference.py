"""Random data sets in COCO/LVIS form and the original evaluators as oracles (used by several tests here)."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from pycocotools import mask as mask_utils


def random_dataset(
    seed: int, *, images: int = 12, categories: int = 6, crowd: bool = False
) -> dict[str, Any]:
    """A small annotation file: boxes as polygons or RLE, gaps in the ids, some images without any
    object.
    """
    rng = np.random.default_rng(seed)
    category_ids = np.sort(rng.choice(np.arange(1, 40), categories, replace=False)).tolist()
    out: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    for position, category in enumerate(category_ids):
        out["categories"].append({"id": category, "name": f"c{category}", "frequency": "rcf"[position % 3]})
    for image in rng.permutation(np.arange(images) * 7 + 3).tolist():
        not_exhaustive = rng.choice(category_ids, rng.integers(0, 3), replace=False).tolist()
        negative = rng.choice(category_ids, rng.integers(0, 4), replace=False).tolist()
        out["images"].append(
            {
                "id": image,
                "width": 160,
                "height": 120,
                "neg_category_ids": negative,
                "not_exhaustive_category_ids": not_exhaustive,
            }
        )
        for _ in range(int(rng.integers(0, 9))):
            box = random_box(rng)
            annotation = {
                "id": len(out["annotations"]) + 11,
                "image_id": image,
                "category_id": int(rng.choice(category_ids)),
                "bbox": box,
                "area": float(box[2] * box[3] * rng.choice([0.5, 1.0])) if rng.random() > 0.05 else 0.0,
                "segmentation": polygon(box),
                "iscrowd": 0,
            }
            if crowd and rng.random() < 0.25:
                mask = np.zeros((120, 160), np.uint8, order="F")
                x, y, w, h = (int(v) for v in box)
                mask[y : y + h, x : x + w] = 1
                flat = mask.reshape(-1, order="F")
                runs = np.diff(np.flatnonzero(np.r_[1, np.diff(flat), 1]))
                counts = [int(v) for v in (runs if flat[0] == 0 else np.r_[0, runs])]
                annotation |= {"iscrowd": 1, "segmentation": {"size": [120, 160], "counts": counts}}
            out["annotations"].append(annotation)
    order = rng.permutation(len(out["annotations"]))
    out["annotations"] = [out["annotations"][i] for i in order]
    return out


def random_box(rng: np.random.Generator) -> list[float]:
    """x, y, w, h inside 160 x 120; sizes over all three area ranges."""
    w, h = rng.choice([6.0, 15.5, 40.0, 100.0]), rng.choice([8.0, 20.25, 50.0, 100.0])
    return [
        float(np.round(rng.uniform(0, 160 - w))),
        float(np.round(rng.uniform(0, 120 - h))),
        float(w),
        float(h),
    ]


def polygon(box: list[float]) -> list[list[float]]:
    """The rectangle as one polygon."""
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def random_results(
    dataset: dict[str, Any], seed: int, *, per_image: int = 30, digits: int = 2, with_box: bool = True
) -> list[dict[str, Any]]:
    """Detections near and far from the objects; few digits make many tied scores and tied IoUs."""
    rng = np.random.default_rng(seed)
    category_ids = [category["id"] for category in dataset["categories"]]
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in dataset["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    rows = []
    for image in dataset["images"]:
        for _ in range(int(rng.integers(0, per_image + 1))):
            near = by_image.get(image["id"], [])
            box, category = random_box(rng), int(rng.choice(category_ids))
            if near and rng.random() < 0.7:
                target = near[int(rng.integers(len(near)))]
                box = [float(v) for v in np.abs(np.array(target["bbox"]) + np.round(rng.normal(0, 2, 4)))]
                box[2:] = [max(side, 1.0) for side in box[2:]]
                category = target["category_id"] if rng.random() < 0.8 else category
            rle = mask_utils.merge(mask_utils.frPyObjects(polygon(box), 120, 160))
            row = {
                "image_id": image["id"],
                "category_id": category,
                "score": float(np.round(rng.random(), digits)),
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
            }
            rows.append(row | {"bbox": box} if with_box else row)
    return [rows[i] for i in rng.permutation(len(rows))]


def run_pycocotools(dataset: dict[str, Any], results: list[dict[str, Any]], iou_type: str) -> Any:
    """COCOeval after evaluate and accumulate."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(dataset)
        truth.createIndex()
        result = truth.loadRes(copy.deepcopy(results))
        evaluator = COCOeval(truth, result, iou_type)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def run_lvis(
    folder: Path,
    dataset: dict[str, Any],
    results: list[dict[str, Any]],
    iou_type: str,
    max_dets: int = 300,
) -> Any:
    """LVISEval of lvis-api 0.5.3 after run(); it needs numpy's removed np.float and a cv2 that is never
    used. `max_dets` per image, -1 for no limit.
    """
    path = folder / "truth.json"
    path.write_text(json.dumps(dataset))
    with (
        mock.patch.dict(sys.modules, {"cv2": types.ModuleType("cv2")}),
        mock.patch.object(np, "float", float, create=True),
    ):
        from lvis import LVIS, LVISEval, LVISResults

        truth = LVIS(str(path))
        result = LVISResults(truth, copy.deepcopy(results), max_dets=max_dets)
        evaluator = LVISEval(truth, result, iou_type)
        evaluator.run()
    return evaluator
