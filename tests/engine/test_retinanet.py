"""The small RetinaNet of configs/tiny trains on demo data, is tested, and draws its detections."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import clone_with, load_config
from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.engine.train_and_test import (
    build_seeded_model,
    load_test_weights,
    test_plain,
    train_plain,
)
from maskrcnn_benchmark.utils.errors import ConfigError


@pytest.fixture(scope="module")
def cfg(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> CfgNode:
    """Twenty iterations of four images of 64 pixels."""
    folder = tmp_path_factory.mktemp("data") / "demo"
    generate_demo(folder, DemoOptions(train=16, val=6, size=64, seed=0, classes=6), report=lambda text: None)
    return load_config(
        project_root / "configs" / "tiny" / "retinanet_R_18_FPN_gn.yaml",
        [
            *("DATASETS.TRAIN", f"('lvis:{folder}/train.json@{folder}/images/train',)"),
            *("DATASETS.TEST", f"('lvis:{folder}/val.json@{folder}/images/val',)"),
            *("MODEL.DEVICE", "cpu", "MODEL.RETINANET.NUM_CLASSES", 7, "MODEL.BACKBONE.CONV_BODY"),
            *("R-10-FPN-RETINANET", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 32),
            *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", 64, "SOLVER.IMS_PER_BATCH", 4),
            *("SOLVER.MAX_ITER", 20, "SOLVER.WARMUP_ITERS", 5, "SOLVER.LOG_PERIOD", 5),
            *("SOLVER.BASE_LR", 0.1),
            *("MODEL.RETINANET.INFERENCE_TH", 0.001, "OUTPUT_DIR", str(tmp_path_factory.mktemp("out"))),
        ],
    )


def test_wrong_class_count_is_found_before_training(cfg: CfgNode, tmp_path: Path) -> None:
    used = clone_with(cfg, ["OUTPUT_DIR", str(tmp_path), "MODEL.RETINANET.NUM_CLASSES", 81])
    with pytest.raises(ConfigError, match=r"set MODEL\.RETINANET\.NUM_CLASSES 7"):
        train_plain(used)


def test_twenty_iterations_test_and_prediction(cfg: CfgNode) -> None:
    model, summary = train_plain(cfg)
    out = Path(cfg.OUTPUT_DIR)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss_retina_cls"] for line in lines if "loss_retina_cls" in line]
    assert summary.iterations == 20 and losses[-1] < losses[0]
    reports = test_plain(cfg, model)
    assert {"bbox/AP", "bbox/APr"} <= set(reports["val"].metrics)
    assert not any(name.startswith("segm") for name in reports["val"].metrics)
    again = build_seeded_model(cfg)
    load_test_weights(cfg, again, None)
    assert test_plain(cfg, again)["val"].metrics == reports["val"].metrics
    found = Predictor.from_config(cfg, str(out / "model_final.pth"))(Image.new("RGB", (90, 70), (9, 99, 200)))
    assert found.size == (90, 70) and found.has_field("labels") and not found.has_field("masks")
