"""The test of the house: a family from outside the package trains, tests, predicts and is explained."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.load import clone_with, load_config
from maskrcnn_benchmark.config.models import FAMILIES, model_family, register_family
from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo
from maskrcnn_benchmark.doctor.run import examine
from maskrcnn_benchmark.engine.writers import METRICS_FILE, read_metrics
from maskrcnn_benchmark.modeling.registry import HEADS
from maskrcnn_benchmark.utils.errors import CheckpointError, ConfigError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
MODEL:
  HEAD: toy
  NECK: fpn
  BACKBONE: {CONV_BODY: R-10, FREEZE_CONV_BODY_AT: 0}
  RESNETS:
    {TRANS_FUNC: BasicBlockWithGN, STEM_FUNC: StemWithGN, STEM_OUT_CHANNELS: 8, RES2_OUT_CHANNELS: 8,
     BACKBONE_OUT_CHANNELS: 16, STRIDE_IN_1X1: False}
  GROUP_NORM: {NUM_GROUPS: 4}
  TOY: {NUM_CLASSES: 7}
  DEVICE: cpu
INPUT:
  {MIN_SIZE_TRAIN: [64], MAX_SIZE_TRAIN: 64, MIN_SIZE_TEST: 64, MAX_SIZE_TEST: 64,
   PIXEL_STD: [57.0, 57.0, 57.0]}
DATALOADER: {SIZE_DIVISIBILITY: 32, NUM_WORKERS: 0}
SOLVER:
  {OPTIMIZER: ADAMW, BASE_LR: 0.003, IMS_PER_BATCH: 4, MAX_ITER: 12, STEPS: [], WARMUP_ITERS: 3,
   LOG_PERIOD: 1}
TEST: {IMS_PER_BATCH: 2, DETECTIONS_PER_IMG: 20}
"""


def _load(path: Path) -> Any:
    """Module of a Python file that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[None]:
    """Register the family for the tests of this file."""
    before = [dict(registry._entries) for registry in (FAMILIES, HEADS)]
    _load(ROOT / "tests" / "meta" / "toy_head.py").register(register_family, HEADS)
    yield
    for registry, entries in zip((FAMILIES, HEADS), before, strict=True):
        registry._entries = entries


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Config of the toy family on 12 training and 4 test images."""
    folder = tmp_path_factory.mktemp("toy")
    generate_demo(
        folder / "demo", DemoOptions(train=12, val=4, size=64, seed=0, classes=6), report=lambda text: None
    )
    data = f"lvis:{folder}/demo/{{0}}.json@{folder}/demo/images/{{0}}"
    sets = f'DATASETS: {{TRAIN: ["{data.format("train")}"], TEST: ["{data.format("val")}"]}}\n'
    path = folder / "toy.yaml"
    path.write_text(f"OUTPUT_DIR: {folder}/run\n{sets}{CONFIG}", encoding="utf-8")
    return path


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Function (name, arguments) that runs a command line in this process, where the family is registered."""

    def run(name: str, *arguments: object) -> Any:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        return _load(ROOT / "tools" / f"{name}.py").main()

    return run


def test_trains_tests_and_predicts(config: Path, tool: Callable[..., Any], tmp_path: Path) -> None:
    tool("train_net", "--config-file", config)
    run = config.parent / "run"
    records = [r for r in read_metrics(run / METRICS_FILE) if r["kind"] == "train"]
    losses = [r["loss"] for r in records]
    assert len(losses) == 12 and all(map(math.isfinite, losses)) and sum(losses[-3:]) < sum(losses[:3])
    assert {"loss_toy_cls", "loss_toy_box"} <= set(records[0])
    assert {p.name for p in (run / "inference" / "val").iterdir()} == {
        "bbox.json",
        "metrics.json",
        "per_class.csv",
    }
    assert json.loads((run / "inference" / "val" / "bbox.json").read_text())
    tool("test_net", "--config-file", config, "OUTPUT_DIR", run)

    weights, images = run / "model_final.pth", config.parent / "demo" / "images" / "val"
    outputs = ("--threshold", 0, "--json", tmp_path / "r.json", "--out", tmp_path / "drawn")
    assert tool("predict", "--config-file", config, "--weights", weights, *outputs, images) == 0
    content = json.loads((tmp_path / "r.json").read_text())
    assert len(content["images"]) == 4 and 0 < len(content["annotations"]) <= 80
    assert len(list((tmp_path / "drawn").iterdir())) == 4


def test_doctor_knows_it(config: Path) -> None:
    report = examine(
        config, ["MODEL.TOY.BOX_WEIGHT", "0.0", "MODEL.TOY.BETA", "0.5", "MODEL.FCOS.NUM_CONVS", "2"]
    )
    findings = [f for section in report.sections.values() for f in section]
    assert report.of_level("error") == [] and not [f for f in findings if "stopped by itself" in f.text]
    meanings = {setting.key: setting.meaning for setting in report.settings}
    assert meanings["MODEL.TOY.NUM_CLASSES"] == "classes with background"
    texts = "\n".join(f"{f.text} ({', '.join(f.keys)})" for f in findings)
    assert "boxes are not trained (MODEL.TOY.BOX_WEIGHT)" in texts
    assert "without effect: MODEL.TOY.SMOOTH is False (MODEL.TOY.BETA)" in texts
    assert "the model is not FCOS: FCOS_ON is False (MODEL.FCOS.NUM_CONVS)" in texts
    assert "6 categories and the background (MODEL.TOY.NUM_CLASSES)" in texts
    unused = examine(ROOT / "configs" / "tiny" / "fcos.yaml", ["MODEL.TOY.BETA", "0.5"], quick=True)
    assert "the model is not Toy: MODEL.HEAD is not toy" in str(unused.sections["settings"])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (("MODEL.HEAD", "tooy"), "unknown MODEL.HEAD 'tooy'; did you mean toy"),
        (("MODEL.TOY.SCORE_TH", 2.0), "MODEL.TOY.SCORE_TH must be between 0 and 1, got 2.0"),
        (("MODEL.TOY.BETTA", 2.0), "unknown key MODEL.TOY.BETTA; nearest known keys: MODEL.TOY.BETA"),
        (("MODEL.TOY.BETA", "much"), "MODEL.TOY.BETA must be a number, got 'much'"),
        (("MODEL.MASK_ON", True), "the model of MODEL.HEAD toy has no RoI heads; set MODEL.MASK_ON False"),
        (("MODEL.FCOS_ON", True), "MODEL.HEAD is toy, but MODEL.FCOS_ON is True"),
        (("MODEL.NECK", "none"), "MODEL.NECK none, which does not fit MODEL.HEAD toy: .* fpn_p6p7 or fpn"),
        (("DATALOADER.SIZE_DIVISIBILITY", 4), "must be a multiple of 8, got 4: Toy needs an input"),
        (("MODEL.USE_DISTILL", True), "set MODEL.HEAD '', or MODEL.USE_DISTILL False"),
    ],
)
def test_config_errors_explain_it(config: Path, pairs: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        clone_with(load_config(config), pairs)


def test_its_section_is_part_of_every_config() -> None:
    assert get_cfg().MODEL.TOY.BOX_WEIGHT == 1.0
    assert model_family(get_cfg()).name == "rcnn"


def test_weights_of_another_model_name_its_key(
    config: Path, tool: Callable[..., Any], tmp_path: Path
) -> None:
    state = {"rpn.conv.gain": torch.zeros(1), "backbone.body.stem.bn1.bias": torch.zeros(8)}
    torch.save({"model": state}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"check .*MODEL\.TOY\.NUM_CLASSES"):
        tool(
            "predict",
            "--config-file",
            config,
            "--weights",
            tmp_path / "w.pth",
            "--json",
            tmp_path / "r",
            config,
        )
