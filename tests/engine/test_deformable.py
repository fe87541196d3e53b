"""Training and testing of the small deformable configuration."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo
from maskrcnn_benchmark.engine import train_and_test as plain


def test_twenty_iterations(project_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    generate_demo(folder, DemoOptions(train=12, val=4, size=64, seed=0, classes=6), report=lambda text: None)
    cfg = load_config(
        project_root / "configs" / "tiny" / "mask_rcnn_mdconv_R_10_FPN_gn.yaml",
        [
            *("DATASETS.TRAIN", f"('lvis:{folder}/train.json@{folder}/images/train',)"),
            *("DATASETS.TEST", f"('lvis:{folder}/val.json@{folder}/images/val',)"),
            *("OUTPUT_DIR", str(tmp_path / "run"), "MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", 20),
            *("MODEL.ROI_BOX_HEAD.NUM_CLASSES", 7, "SOLVER.IMS_PER_BATCH", 2, "SOLVER.LOG_PERIOD", 1),
            *("INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MIN_SIZE_TEST", 64, "TEST.IMS_PER_BATCH", 2),
            *("SOLVER.WARMUP_ITERS", 5, "SOLVER.STEPS", ()),
        ],
    )
    before = plain.build_seeded_model(cfg).state_dict()
    model, summary = plain.train_plain(cfg)
    assert summary.iterations == 20
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    losses = [line["loss"] for line in lines if "loss" in line]
    assert all(map(math.isfinite, losses)) and sum(losses[-5:]) < sum(losses[:5])
    name = "backbone.body.layer3.0.conv2.offset.bias"
    assert not before[name].any() and model.state_dict()[name].any(), "offsets must learn"
    with torch.no_grad():
        assert "segm/AP" in plain.test_plain(cfg, model)["val"].metrics
