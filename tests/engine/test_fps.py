"""The table of stages, on the tiny model of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.engine.fps import FpsReport, measure_fps
from maskrcnn_benchmark.engine.frames import find_sources
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.utils.errors import DataError, UsageError

STEPS = ["read", "transform", "to device"]
TWO_STAGE = ["backbone", "proposal head", "proposals", "box head", "detections"]
END = ["rest of the network", "full size", "draw"]


@pytest.fixture(scope="module")
def noise_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of noise."""
    path = tmp_path_factory.mktemp("image") / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def tiny(project_root: Path, name: str) -> Predictor:
    """The predictor of a tiny configuration with random weights."""
    cfg = load_config(project_root / "configs" / "tiny" / f"{name}.yaml", ["MODEL.DEVICE", "cpu"])
    return Predictor.from_config(cfg, None)


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("mask_rcnn_R_10_FPN_gn", [*TWO_STAGE, "mask head"]),
        ("keypoint_rcnn_R_10_FPN_gn", [*TWO_STAGE, "mask head", "keypoint head"]),
        ("mask_rcnn_R_10_FPN_gn_tta", [*TWO_STAGE, "mask head"]),
        ("retinanet_R_18_FPN_gn", ["backbone", "head", "detections"]),
        ("sipmask_plusplus", ["backbone", "head", "detections", "mask assembly"]),
    ],
)
def test_stages_of_every_kind(name: str, inner: list[str], project_root: Path, noise_image: Path) -> None:
    predictor = tiny(project_root, name)
    before = predictor(Image.open(noise_image))
    report = measure_fps(
        predictor, find_sources([noise_image])[0], lambda image, detections: None, warmup=1, repeat=2
    )
    assert list(report.stages) == [*STEPS, *inner, *END]
    assert all(len(times) == 2 and (times > 0).all() for times in report.stages.values())
    # Nothing stays clocked, and the answers are the same.
    assert all("forward" not in vars(module) for module in predictor.model.modules())
    assert not {"prepare", "upload", "network", "postprocess"} & set(vars(predictor))
    assert torch.equal(predictor(Image.open(noise_image)).bbox, before.bbox)


def test_totals_and_their_table() -> None:
    stages = {
        "read": np.array([1.0, 1, 1]),
        "backbone": np.array([10.0, 20, 30]),
        "draw": np.array([4.0, 4, 4]),
    }
    report = FpsReport(stages, {"device": "abacus"})
    text = report.table()
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["device", "abacus"]
    assert ["detect", "20.0", "28.0", "50.000"] in lines
    assert ["read,", "detect,", "draw", "25.0", "33.0", "40.000"] in lines
    content = report.to_json()
    assert content["stages"]["backbone"] == {"median_ms": 20.0, "p90_ms": 28.0}
    assert content["totals"]["detect"]["fps"] == 50.0 and content["device"] == "abacus"
    without = FpsReport({k: v for k, v in stages.items() if k != "draw"}, {})
    assert list(without.totals()) == ["detect", "read, detect"]


def test_what_cannot_be_measured(project_root: Path, noise_image: Path, tmp_path: Path) -> None:
    predictor = tiny(project_root, "mask_rcnn_R_10_FPN_gn")
    with pytest.raises(UsageError, match="--repeat must be at least 1"):
        measure_fps(predictor, find_sources([noise_image])[0], None, repeat=0)
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad\.png cannot be read"):
        measure_fps(predictor, find_sources([tmp_path])[0], None)
    assert "prepare" not in vars(predictor)
