"""Every model family trains for 20 iterations on small data and is tested, from the files in configs/tiny."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.config.models import class_count_key, predicts_masks
from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo
from maskrcnn_benchmark.engine.train_and_test import test_plain, train_plain
from maskrcnn_benchmark.engine.writers import METRICS_FILE, read_metrics
from maskrcnn_benchmark.evaluation.report import EvaluationReport

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "tiny"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
RECALLS = {f"box_proposal/AR{size}@{limit}" for size in ("", "s", "m", "l") for limit in (100, 1000)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """12 training and 4 test images with objects of 6 classes, {} standing for the part."""
    folder = tmp_path_factory.mktemp("data") / "demo"
    generate_demo(folder, DemoOptions(train=12, val=4, size=64, seed=0, classes=6), report=lambda text: None)
    return f"lvis:{folder}/{{0}}.json@{folder}/images/{{0}}"


@pytest.fixture(scope="module")
def triangles(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Images of one or two triangles, upright, with their corners as keypoints; COCO format."""
    folder, rng = tmp_path_factory.mktemp("data") / "triangles", np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 4)):
        (folder / part).mkdir(parents=True)
        data: dict = {
            "images": [
                {"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(1, count + 1)
            ],
            "annotations": [],
            "categories": [
                {
                    "id": 1,
                    "name": "triangle",
                    "keypoints": ["left_corner", "right_corner", "top"],
                    "skeleton": [],
                }
            ],
        }
        for image in data["images"]:
            scene = Image.fromarray(rng.integers(0, 90, (64, 64, 3), dtype=np.uint8))
            for _ in range(int(rng.integers(1, 3))):
                x, y, w, h = (int(v) for v in (*rng.integers(2, 28, 2), *rng.integers(18, 34, 2)))
                corners = [(x, y + h), (x + w, y + h), (x + w // 2, y)]
                ImageDraw.Draw(scene).polygon(corners, fill=(230, 200, 60))
                data["annotations"].append(
                    {
                        "id": len(data["annotations"]) + 1,
                        "image_id": image["id"],
                        "category_id": 1,
                        "bbox": [x, y, w, h],
                        "area": w * h / 2,
                        "iscrowd": 0,
                        "segmentation": [[float(v) for corner in corners for v in corner]],
                        "keypoints": [v for corner in corners for v in (*corner, 2)],
                        "num_keypoints": 3,
                    }
                )
            scene.save(folder / part / image["file_name"])
        (folder / f"{part}.json").write_text(json.dumps(data))
    return f"coco:{folder}/{{0}}.json@{folder}/{{0}}"


def _config(name: str, data: str, folder: Path) -> CfgNode:
    """The file with the data, a short schedule and images of 64 pixels."""
    file = CONFIGS / f"{name}.yaml"
    classes = 2 if load_config(file).MODEL.KEYPOINT_ON else 7
    return load_config(
        file,
        [
            *("INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MAX_SIZE_TRAIN", 64),
            *("INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 64),
            *("MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(folder)),
            *("MODEL.ROI_BOX_HEAD.NUM_CLASSES", classes, "MODEL.RETINANET.NUM_CLASSES", classes),
            *("MODEL.FCOS.NUM_CLASSES", classes, "MODEL.SIPMASK.NUM_CLASSES", classes),
            *("MODEL.FCOS.INFERENCE_TH", 0.0, "MODEL.SIPMASK.INFERENCE_TH", 0.0),
            *("DATASETS.TRAIN", (data.format("train"),), "DATASETS.TEST", (data.format("val"),)),
            *("SOLVER.MAX_ITER", 20, "SOLVER.IMS_PER_BATCH", 2, "SOLVER.WARMUP_ITERS", 5),
            *("MODEL.ROI_HEADS.SCORE_THRESH", 0.0, "MODEL.RETINANET.INFERENCE_TH", 0.0),
            *("SOLVER.LOG_PERIOD", 1, "TEST.IMS_PER_BATCH", 2, "SOLVER.STEPS", ()),
        ],
    )


def _tasks(cfg: CfgNode) -> set[str]:
    """What the model of `cfg` is evaluated by."""
    if class_count_key(cfg) is None:
        return {"box_proposal"}
    optional = {"segm": predicts_masks(cfg), "keypoints": cfg.MODEL.KEYPOINT_ON}
    return {"bbox"} | {task for task, on in optional.items() if on}


@pytest.mark.parametrize("name", NAMES)
def test_family_trains_and_tests(name: str, demo: str, triangles: str, tmp_path: Path) -> None:
    cfg = _config(name, triangles if name.startswith("keypoint") else demo, tmp_path)
    model, summary = train_plain(cfg)
    assert summary.iterations == 20
    records = [r for r in read_metrics(tmp_path / METRICS_FILE) if r["kind"] == "train"]
    assert len(records) == 20 and all(math.isfinite(r["loss"]) for r in records)
    # Masks of SipMask begin to cost something when its boxes begin to have an area.
    losses = [r["loss_reg" if cfg.MODEL.SIPMASK_ON else "loss"] for r in records]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    (report,) = test_plain(cfg, model).values()
    assert set(report.tasks) == _tasks(cfg)
    assert len(report.detections) > 0 and all(-1 <= value <= 1 for value in report.metrics.values())
    _check_files(tmp_path / "inference" / "val", report)


def _check_files(folder: Path, report: EvaluationReport) -> None:
    """One result file per task, and the numbers."""
    found = {path.name for path in folder.iterdir()}
    if "box_proposal" in report.tasks:
        assert found == {"box_proposals.pth", "metrics.json", "per_class.csv"}
        assert set(report.metrics) == RECALLS and report.metrics["box_proposal/AR@1000"] > 0
        return
    assert found == {f"{task}.json" for task in report.tasks} | {"metrics.json", "per_class.csv"}
    if "keypoints" in report.tasks:
        row = json.loads((folder / "keypoints.json").read_text())[0]
        assert set(row) == {"image_id", "category_id", "score", "keypoints"} and len(row["keypoints"]) == 9
        assert {"keypoints/AP", "keypoints/AP50", "keypoints/APm"} <= set(report.metrics)
