"""Damaged annotation and result files, read as training and testing read them."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mutations import flip_bits, mutate_bytes, mutate_json, mutate_text
from runner import LateRefusal, SilentDifference

from maskrcnn_benchmark.config.catalog import DatasetSpec
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo
from maskrcnn_benchmark.data.datasets.detection import DetectionDataset
from maskrcnn_benchmark.data.datasets.readers import load_annotations
from maskrcnn_benchmark.data.transforms import Compose
from maskrcnn_benchmark.evaluation.build import build_evaluator
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.rle import RleMasks
from maskrcnn_benchmark.utils.errors import ConfigError, UsageError

SIDE = 48
KEYPOINTS = (
    *("MODEL.ROI_KEYPOINT_HEAD.RESOLUTION", 56, "MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES", 2),
    *("TEST.KEYPOINT_OKS_SIGMAS", (0.1, 0.1)),
)


def demo_annotations(folder: Path) -> dict[str, Any]:
    """A small LVIS file with polygons, made by the demo's generator."""
    if not (folder / "demo").exists():
        options = DemoOptions(train=8, val=4, size=SIDE, seed=0, classes=6)
        generate_demo(folder / "demo", options, report=lambda _: None)
    return json.loads((folder / "demo" / "train.json").read_text())


def coco_annotations() -> dict[str, Any]:
    """A small COCO file with polygons, both kinds of run lengths, a crowd and keypoints."""
    images = [{"id": i, "width": SIDE, "height": SIDE, "file_name": f"{i}.png"} for i in (1, 2, 3)]
    categories = [
        {
            "id": 1,
            "name": "person",
            "supercategory": "a",
            "keypoints": ["nose", "hand"],
            "skeleton": [[1, 2]],
        },
        {"id": 7, "name": "thing", "supercategory": "b"},
    ]
    box = {"bbox": [4, 5, 20, 10], "area": 200.0, "iscrowd": 0}
    polygon = [[4, 5, 24, 5, 24, 15, 4, 15]]
    runs = {"size": [SIDE, SIDE], "counts": [165, 10, 30, 10, SIDE * SIDE - 215]}
    text = {"size": [SIDE, SIDE], "counts": RleMasks.from_dicts([_full(SIDE, SIDE)])[0]["counts"].decode()}
    segmentations: list[Any] = [polygon, runs, text, polygon + polygon]
    annotations = [
        box | {"id": i, "image_id": 1 + i % 3, "category_id": (1, 7)[i % 2], "segmentation": segmentation}
        for i, segmentation in enumerate(segmentations, 1)
    ]
    annotations[0] |= {"keypoints": [5, 6, 2, 0, 0, 0], "num_keypoints": 1}
    annotations[1] |= {"iscrowd": 1}
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def _full(height: int, width: int) -> dict[str, Any]:
    """A mask of all pixels as compressed run lengths: a run of 0, and one of all."""
    text, count = "0", height * width
    while True:
        bits, count = count & 31, count >> 5
        more = not (count == 0 and not bits & 16)
        text += chr((bits | (32 if more else 0)) + 48)
        if not more:
            return {"size": [height, width], "counts": text}


class Annotations:
    """COCO and LVIS files."""

    name = "annotations"

    def prepare(self, folder: Path) -> None:
        """Make the files and the configs of three models."""
        self._trees = [demo_annotations(folder), coco_annotations()]
        cfg = get_cfg()
        self._cfgs = [
            clone_with(cfg, ["MODEL.MASK_ON", True]),
            clone_with(cfg, ["MODEL.MASK_ON", False]),
            clone_with(cfg, ["MODEL.MASK_ON", True, "MODEL.KEYPOINT_ON", True, *KEYPOINTS]),
        ]
        for tree in self._trees:
            read_as_training_does(self._write(folder, json.dumps(tree).encode()), self._cfgs[0], 1 << 30)

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        """Change values, or the text."""
        tree = rng.choice(self._trees)
        text = mutate_json(rng, tree) if rng.random() < 0.8 else json.dumps(tree)
        content = mutate_text(rng, text) if rng.random() < 0.3 else text.encode("utf-8", "surrogatepass")
        path = self._write(folder, content)
        os.environ["MRB_CACHE_DIR"] = str(folder / "cache")
        cfg, index_from = rng.choice(self._cfgs), rng.choice([0, 1 << 30])
        return lambda: read_as_training_does(path, cfg, index_from)

    @staticmethod
    def _write(folder: Path, content: bytes) -> Path:
        path = folder / "annotations.json"
        path.write_bytes(content)
        return path


def read_as_training_does(path: Path, cfg: Any, index_from: int) -> None:
    """Open a file, make all targets, then evaluate detections of every image and category.

    LateRefusal when it is opened and then refused.
    """
    file = AnnotationFile.load(path, index_from=index_from)
    use_annotations(file, cfg)


def use_annotations(file: AnnotationFile, cfg: Any) -> None:
    """What follows once a file is opened."""
    points = 1 if cfg.MODEL.KEYPOINT_ON else None
    for train in (True, False):
        keep = "valid" if train else "all"
        dataset = DetectionDataset(
            file, "", transforms=Compose([]), train=train, keep_images=keep, min_keypoints=points
        )
        try:
            for index in range(len(dataset)):
                dataset.target(index)
                dataset.get_labels(index)
        except UsageError as error:
            raise LateRefusal(f"targets, after the file was opened: {error}") from error
    if file.kind not in ("coco", "lvis") or (points and file.kind == "lvis"):
        return
    evaluator = build_evaluator(cfg, file.raw, dataset.label_to_category, kind=file.kind)
    found = _detections(file, masks=cfg.MODEL.MASK_ON, points=len(dataset.keypoint_names) if points else 0)
    try:
        evaluator.evaluate_detections(found)  # type: ignore[attr-defined]
    except ConfigError:  # other keypoints than the config's, which training compares before it starts
        raise
    except UsageError as error:
        raise LateRefusal(f"evaluation, after the file was opened: {error}") from error


def _detections(file: AnnotationFile, *, masks: bool, points: int) -> Detections:
    """One detection per image and category that covers all of the image."""
    pairs = [(image, category) for image in file.images[:20] for category in file.category_ids[:20]]
    rows = [
        {
            "image_id": image["id"],
            "category_id": category,
            "score": 0.5,
            "bbox": [0, 0, image["width"], image["height"]],
            **({"segmentation": _full(int(image["height"]), int(image["width"]))} if masks else {}),
            **({"keypoints": [1, 1, 2] * points} if points else {}),
        }
        for image, category in pairs
    ]
    return Detections.from_json(rows)


class CachedIndex:
    """The cached index of an annotation file."""

    name = "index"

    def prepare(self, folder: Path) -> None:
        """Make a file, its index, and what both give."""
        self._path = folder / "annotations.json"
        self._path.write_text(json.dumps(coco_annotations()))
        self._cache = folder / "cache"
        os.environ["MRB_CACHE_DIR"] = str(self._cache)
        self._expected = self._content()
        assert self._expected == self._content() and list(self._cache.rglob("*.*"))

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        """Flip bits, or damage bytes, of one file of the index."""
        cache = folder / "cache"
        shutil.copytree(self._cache, cache)
        path = rng.choice(sorted(path for path in cache.rglob("*") if path.is_file()))
        data = path.read_bytes()
        path.write_bytes(flip_bits(rng, data) if rng.random() < 0.5 else mutate_bytes(rng, data))
        os.environ["MRB_CACHE_DIR"] = str(cache)
        return self._compare

    def _compare(self) -> None:
        if self._content() != self._expected:
            raise SilentDifference("a damaged index gives other annotations")

    def _content(self) -> str:
        file = AnnotationFile.load(self._path, index_from=0)
        columns = {name: array.tolist() for name, array in vars(file.columns).items()}
        return json.dumps([columns, list(file.raw["annotations"]), file.images, file.categories])


class Results:
    """COCO result files."""

    name = "results"

    def prepare(self, folder: Path) -> None:
        """Make ground truth, and results with and without boxes and masks."""
        tree = coco_annotations()
        self._cfg = clone_with(get_cfg(), ["MODEL.MASK_ON", True])
        path = folder / "truth.json"
        path.write_text(json.dumps(tree))
        self._file = AnnotationFile.load(path)
        self._labels = [0, *self._file.category_ids]
        rows = _detections(self._file, masks=True, points=0).to_json()
        polygons = [row | {"segmentation": [[4, 5, 24, 5, 24, 15]]} for row in copy.deepcopy(rows)]
        without = [
            [{k: v for k, v in row.items() if k != key} for row in rows] for key in ("segmentation", "bbox")
        ]
        self._lists = [rows, polygons, *without]

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        """Change values, or the text."""
        rows = rng.choice(self._lists)
        text = mutate_json(rng, rows) if rng.random() < 0.8 else json.dumps(rows)
        content = mutate_text(rng, text) if rng.random() < 0.3 else text.encode("utf-8", "surrogatepass")
        path = folder / "results.json"
        path.write_bytes(content)
        both = rng.random() < 0.5
        return lambda: self._read(path, both)

    def _read(self, path: Path, both: bool) -> None:
        """Read, evaluate; and where the file is JSON, read the parsed list by the other reader."""
        found = Detections.read(path)
        masks = found.rles is not None
        cfg = self._cfg if masks else clone_with(self._cfg, ["MODEL.MASK_ON", False])
        evaluator = build_evaluator(cfg, self._file.raw, self._labels, kind="coco")
        evaluator.evaluate_detections(found)  # type: ignore[attr-defined]
        if both:
            try:
                rows = json.loads(path.read_bytes().decode("utf-8-sig"))
            except (ValueError, RecursionError):  # of Python's JSON, which reads less than ours
                return
            Detections.from_json(rows)


class PascalVoc:
    """Splits of Pascal VOC: XML files and their list."""

    name = "voc"
    _XML = (
        "<annotation><folder>v</folder><filename>{0}.jpg</filename><size><width>40</width><height>40</height>"
        "<depth>3</depth></size><object><name>cat</name><difficult>0</difficult><truncated>0</truncated>"
        "<bndbox><xmin>4</xmin><ymin>5</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object></annotation>"
    )
    _WORDS = (
        "NaN",
        "-1",
        "1e999",
        "9" * 400,
        "",
        "true",
        "Unspecified",
        "0",
        "\x1b[31m",
        "&lt;",
        "4.5",
        "dog",
    )

    def prepare(self, folder: Path) -> None:
        """Nothing to make."""

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        """Change values of an XML file, its text, or the list."""
        top = folder / "v"
        for name in ("ImageSets/Main", "Annotations", "JPEGImages"):
            (top / name).mkdir(parents=True)
        names = "1\n2\n"
        for name in names.split():
            (top / "JPEGImages" / f"{name}.jpg").touch()
            (top / "Annotations" / f"{name}.xml").write_text(self._XML.format(name))
        text = self._XML.format(2)
        for _ in range(rng.choice([0, 1, 2])):
            old = rng.choice(["<xmin>4", "<width>40", "<difficult>0", "<name>cat", "<ymax>30", "<height>40"])
            tag, _, _ = old.partition(">")
            text = text.replace(old, f"{tag}>{rng.choice(self._WORDS)}")
        content = mutate_text(rng, text) if rng.random() < 0.6 else text.encode()
        (top / "Annotations" / "2.xml").write_bytes(content)
        listed = top / "ImageSets" / "Main" / "train.txt"
        listed.write_bytes(mutate_text(rng, names) if rng.random() < 0.2 else names.encode())
        spec = DatasetSpec("v", "voc", str(listed), str(top / "JPEGImages"))
        cfg = clone_with(get_cfg(), ["MODEL.MASK_ON", False])
        return lambda: use_annotations(load_annotations(spec), cfg)
