"""Damaged files of other programs and hands: replay lists, class orders, logits, ablations, Cityscapes."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from kinds_config import VALUES
from kinds_records import SIDE, demo_annotations, use_annotations
from mutations import mutate_bytes, mutate_json, mutate_text
from PIL import Image

from maskrcnn_benchmark.config.catalog import DatasetSpec
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.data.datasets.annotations import first_images
from maskrcnn_benchmark.data.datasets.readers import load_annotations
from maskrcnn_benchmark.data.samplers import FilePairSampler
from maskrcnn_benchmark.incremental.comparison.ablation import read_ablation
from maskrcnn_benchmark.incremental.distillation.json_files import check_store_complete, import_logits
from maskrcnn_benchmark.incremental.distillation.store import DistillHeader
from maskrcnn_benchmark.incremental.plan.split import check_sorted_ids
from maskrcnn_benchmark.incremental.replay.index_files import read_index_files
from maskrcnn_benchmark.utils.files import read_json

ABLATION = (
    "CONFIG: x.yaml\nSEEDS: [0, 1]\nOPTS: [SEED, 1]\nVARIANTS:\n  full: []\n"
    "  no replay: [LST.REPLAY.ENABLED, False]\n"
    "REFERENCES: {joint: [LST.STEP_SIZE, [6]]}\n"
)


class Published:
    """Files that the released programs or the user write by hand."""

    name = "published"

    def prepare(self, folder: Path) -> None:
        """Make the lists, and annotations that they belong to."""
        self._annotations = demo_annotations(folder)
        self._ids = [category["id"] for category in self._annotations["categories"]]
        self._pairs = [[[0, 1, 2, 3], [4, 5, 6, 7]], [[1, 2, 3, 4], [5, 6, 1, 2]]]
        self._boxes = {1: [11, 12], 2: [21]}
        rows = {str(image): [[0.5, 0.25, 1.0]] * len(ids) for image, ids in self._boxes.items()}
        self._logits = [rows, rows]

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        """Change values or the text of one file."""
        make = rng.choice([self._replay, self._order, self._stored, self._subset, self._ablation])
        return make(rng, folder)

    @staticmethod
    def _written(rng: random.Random, path: Path, tree: object) -> Path:
        text = mutate_json(rng, tree)
        damaged = rng.random() < 0.3
        path.write_bytes(mutate_text(rng, text) if damaged else text.encode("utf-8", "surrogatepass"))
        return path

    def _replay(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        paths = [folder / "images.json", folder / "classes.json"]
        for path, lists in zip(paths, self._pairs, strict=True):
            path.write_text(json.dumps(lists))
        at = rng.randrange(2)
        self._written(rng, paths[at], self._pairs[at])
        if rng.random() < 0.5:
            return lambda: read_index_files(*paths, num_images=8, num_classes=6)
        return lambda: list(
            FilePairSampler(*paths, num_images=8, num_classes=7, images_per_rank=2, num_iters=3)
        )

    def _order(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        path = self._written(rng, folder / "order.json", self._ids)
        return lambda: check_sorted_ids(read_json(path, what="class order"), self._annotations, str(path))

    def _stored(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        path = self._written(rng, folder / "logits.json", self._logits)
        header = DistillHeader(1, 2, "x", "x", (64, 64), (0, 1), "float32")

        def read() -> None:
            check_store_complete(import_logits(path, folder / "store", header, self._boxes), self._boxes)

        return read

    def _subset(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        path = self._written(rng, folder / "annotations.json", self._annotations)
        return lambda: first_images(read_json(path, what="annotation file"), 2)

    @staticmethod
    def _ablation(rng: random.Random, folder: Path) -> Callable[[], object]:
        lines = ABLATION.split("\n")
        at = rng.randrange(len(lines) - 1)
        key, colon, _ = lines[at].partition(":")
        lines[at] = rng.choice([f"{key}{colon} {rng.choice(VALUES)}", "", lines[at] * 2])
        path = folder / "ablation.yaml"
        text = "\n".join(lines).encode("utf-8", "surrogateescape")
        path.write_bytes(mutate_bytes(rng, text) if rng.random() < 0.3 else text)
        return lambda: read_ablation(path)


class Cityscapes:
    """Polygon files and instance images of Cityscapes."""

    name = "cityscapes"

    def prepare(self, folder: Path) -> None:
        """Make one image with three objects."""
        box = [[4, 5], [24, 5], [24, 15], [4, 15]]
        labels = ("person", "cargroup", "out of roi")
        objects = [{"label": label, "polygon": box} for label in labels]
        self._content = {"imgHeight": SIDE, "imgWidth": SIDE, "objects": objects}
        self._top = folder / "city"
        left = self._top / "leftImg8bit" / "val" / "a"
        fine = self._top / "gtFine" / "val" / "a"
        left.mkdir(parents=True, exist_ok=True)
        fine.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIDE, SIDE)).save(left / "x_leftImg8bit.png")
        ids = np.zeros((SIDE, SIDE), np.uint16)
        ids[5:15, 4:24] = 24001
        Image.fromarray(ids).save(fine / "x_gtFine_instanceIds.png")
        (fine / "x_gtFine_polygons.json").write_text(json.dumps(self._content))

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        """Change values of the polygon file, or bytes of either."""
        top = folder / "city"
        shutil.copytree(self._top, top)
        fine = top / "gtFine" / "val"
        if rng.random() < 0.7:
            text = mutate_json(rng, self._content)
            content = text.encode("utf-8", "surrogatepass")
            path = fine / "a" / "x_gtFine_polygons.json"
            path.write_bytes(mutate_text(rng, text) if rng.random() < 0.3 else content)
            form = "poly"
        else:
            path = fine / "a" / "x_gtFine_instanceIds.png"
            path.write_bytes(mutate_bytes(rng, path.read_bytes()))
            form = "mask"
        spec = DatasetSpec("c", f"cityscapes_{form}", str(fine), str(top / "leftImg8bit" / "val"))
        cfg = clone_with(get_cfg(), ["MODEL.MASK_ON", True])
        return lambda: use_annotations(load_annotations(spec), cfg)
