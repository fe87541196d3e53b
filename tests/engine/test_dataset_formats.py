"""Training and testing on Pascal VOC and Cityscapes data: the evaluator and the files of their kind."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.data.datasets.voc import VOC_CLASSES
from maskrcnn_benchmark.engine.train_and_test import build_seeded_model, test_plain, train_plain
from maskrcnn_benchmark.utils.errors import DataError


def _config(project_root: Path, folder: Path, name: str, classes: int, *overrides: str) -> CfgNode:
    """The tiny Mask R-CNN for two iterations on one data set."""
    fixed = ("MODEL.ROI_BOX_HEAD.NUM_CLASSES", str(classes), "OUTPUT_DIR", str(folder / "out"))
    sets = ("DATASETS.TRAIN", f"('{name}',)", "DATASETS.TEST", f"('{name}',)")
    path = project_root / "tests" / "engine" / "tiny.yaml"
    return load_config(path, [*fixed, *sets, "SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", *overrides])


def test_pascal_voc(project_root: Path, tmp_path: Path, dataset_trees: ModuleType) -> None:
    rng = np.random.default_rng(0)
    images = {}
    for number in range(4):
        x, y = (int(v) for v in rng.integers(1, 20, 2))
        images[f"00000{number}"] = [
            ("dog", (x, y, x + 20, y + 15), 0),
            ("cat", (40, 10, 55, 30), number % 2),
        ]
    listed = dataset_trees.make_voc(tmp_path / "VOC", "val", images)
    name = f"voc:{listed}@{tmp_path}/VOC/JPEGImages"
    cfg = _config(project_root, tmp_path, name, 21, "MODEL.MASK_ON", "False", "TEST.VOC_METRIC", "area")
    model, _ = train_plain(cfg)
    report = test_plain(cfg, model)["val"]
    assert report.protocol == "voc" and set(report.metrics) == {"bbox/AP", "bbox/AP50", "bbox/AP75"}
    folder = tmp_path / "out" / "inference" / "val"
    lines = (folder / "result.txt").read_text().splitlines()
    assert lines[0].startswith("mAP") and len(lines) == 21
    assert {p.name for p in (folder / "Main").iterdir()} == {f"comp4_det_val_{c}.txt" for c in VOC_CLASSES}
    assert json.loads((folder / "metrics.json").read_text())["protocol"] == "voc"
    masked = _config(project_root, tmp_path, name, 21)
    with pytest.raises(DataError, match=r"kind voc cannot be tested for segm; set MODEL\.MASK_ON False"):
        test_plain(masked, build_seeded_model(masked))


@pytest.mark.parametrize("form", ["poly", "mask"])
def test_cityscapes(project_root: Path, tmp_path: Path, dataset_trees: ModuleType, form: str) -> None:
    images = {
        f"ulm/ulm_{number}": [
            ("road", dataset_trees.rectangle(0, 0, 64, 64)),
            ("car", dataset_trees.rectangle(5 + number, 5, 30, 24)),
            ("person", dataset_trees.rectangle(40, 30 - number, 12, 26)),
            ("cargroup", dataset_trees.rectangle(2, 45, 20, 12)),
        ]
        for number in range(3)
    }
    dataset_trees.make_cityscapes(tmp_path, "val", images, (64, 64))
    name = f"cityscapes_{form}:{tmp_path}/gtFine/val@{tmp_path}/leftImg8bit/val"
    cfg = _config(project_root, tmp_path, name, 9)
    model, _ = train_plain(cfg)
    report = test_plain(cfg, model)["val"]
    assert report.protocol == "cityscapes" and {"bbox/AP", "segm/AP", "segm/AP50"} <= set(report.metrics)
    folder = tmp_path / "out" / "inference" / "val"
    assert {p.name for p in folder.iterdir()} == {"bbox.json", "segm.json", "metrics.json", "per_class.csv"}
    labels = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert labels["26"] == "car" and list(labels)[0] == "24"
