"""Small data and sound configurations, of which every test spoils one thing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo
from maskrcnn_benchmark.doctor.checkup import Checkup
from maskrcnn_benchmark.doctor.finding import Finding
from maskrcnn_benchmark.doctor.run import Check, run_check
from maskrcnn_benchmark.doctor.settings import trace_settings

Make = Callable[..., Checkup]

_SOUND = """
MODEL:
  RPN: {FPN_POST_NMS_PER_BATCH: False}
  RESNETS: {STRIDE_IN_1X1: False}
SOLVER: {MAX_ITER: 40, STEPS: [30], WARMUP_ITERS: 4, CHECKPOINT_PERIOD: 20}
"""


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training and 8 test images of 64 pixels with 6 categories."""
    folder = tmp_path_factory.mktemp("doctor") / "pictures"
    generate_demo(folder, DemoOptions(train=24, val=8, size=64, classes=6), report=lambda _: None)
    return folder


@pytest.fixture(scope="session")
def plain_config(data: Path, project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ordinary training of the tiny model: nothing to complain about."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "plain.yaml").write_text(
        f"_BASE_: {project_root / 'tests' / 'engine' / 'tiny.yaml'}\n{_SOUND}"
        f"OUTPUT_DIR: {folder / 'run'}\n"
        "DATASETS:\n"
        f'  TRAIN: ["lvis:{data}/train.json@{data}/images/train"]\n'
        f'  TEST: ["lvis:{data}/val.json@{data}/images/val"]\n'
    )
    return folder / "plain.yaml"


@pytest.fixture(scope="session")
def lst_config(data: Path, project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two base classes and two steps of two: nothing to complain about."""
    folder = tmp_path_factory.mktemp("lst")
    box = "{FEATURE_EXTRACTOR: FPN2MLPCosineFeatureExtractor, PREDICTOR: FPNCosinePredictor}"
    (folder / "lst.yaml").write_text(
        f"_BASE_: {project_root / 'tests' / 'engine' / 'tiny.yaml'}\n"
        + _SOUND.replace("MODEL:", f"MODEL:\n  ROI_BOX_HEAD: {box}")
        + f"OUTPUT_DIR: {folder / 'run'}\n"
        "LST:\n"
        "  ENABLED: True\n  BASE_SIZE: 2\n  STEP_SIZE: 2\n  FREEZE_BASE: 0\n"
        f"  ANN_TRAIN: {data}/train.json\n  ANN_VAL: {data}/val.json\n"
        f"  IMG_TRAIN: {data}/images/train\n  IMG_VAL: {data}/images/val\n"
        "  SOLVER_STEP: {BASE_LR: 0.005, WARMUP_ITERS: 2}\n"
    )
    return folder / "lst.yaml"


def _make(path: Path) -> Make:
    def make(*overrides: object, **options: Any) -> Checkup:
        words = [str(word) for word in overrides]
        settings, notes = trace_settings(path, words)
        return Checkup(load_config(path, words), settings, notes, **options)

    return make


@pytest.fixture
def plain(plain_config: Path) -> Make:
    """Makes a checkup of the plain configuration with KEY VALUE overrides and options of Checkup."""
    return _make(plain_config)


@pytest.fixture
def lst(lst_config: Path) -> Make:
    """The same for the LST configuration."""
    return _make(lst_config)


@pytest.fixture
def edited(data: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a copy of the training (or another) annotation file after a change."""

    def write(change: Callable[[dict], object], name: str = "train") -> Path:
        content = json.loads((data / f"{name}.json").read_text())
        change(content)
        path = tmp_path / f"{name}_edited.json"
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture
def the() -> Callable[..., Finding]:
    """Finds the only finding of a level whose text holds a part."""

    def find(check: Check, checkup: Checkup, level: str, text: str) -> Finding:
        findings = run_check(check, checkup)
        chosen = [f for f in findings if f.level == level and text in f.text]
        assert len(chosen) == 1, "\n".join(map(str, findings))
        return chosen[0]

    return find


@pytest.fixture
def worst() -> Callable[[Check, Checkup], list[Finding]]:
    """Errors and warnings of a check, and the note of one that stopped by itself."""

    def find(check: Check, checkup: Checkup) -> list[Finding]:
        findings = run_check(check, checkup)
        return [f for f in findings if f.level in ("error", "warning") or "stopped by itself" in f.text]

    return find
