"""SipMask learns the demo data: the small model of configs/sipmask, all of its schedule."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.data.datasets.demo import generate_demo
from maskrcnn_benchmark.engine.train_and_test import test_plain, train_plain

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "sipmask" / "demo.yaml"


@pytest.mark.slow
def test_mask_ap_of_the_demo_data(tmp_path: Path) -> None:
    """About 12 minutes on one core."""
    generate_demo(tmp_path / "demo", report=lambda text: None)
    data = f"lvis:{tmp_path}/demo/{{0}}.json@{tmp_path}/demo/images/{{0}}"
    cfg = load_config(
        CONFIG,
        [
            *("OUTPUT_DIR", str(tmp_path / "run"), "MODEL.DEVICE", "cpu"),
            *("DATASETS.TRAIN", (data.format("train"),), "DATASETS.TEST", (data.format("val"),)),
        ],
    )
    model, _ = train_plain(cfg)
    (report,) = test_plain(cfg, model).values()
    assert report.metrics["segm/AP"] >= 0.25
    assert report.metrics["bbox/AP"] >= 0.25
