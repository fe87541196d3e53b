"""Reference outputs of the long-tail method, and a plan made from their data set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from yacs.config import CfgNode

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo
from maskrcnn_benchmark.incremental.pipeline.scheduler import run_lst
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.split import build_plan, sorted_category_ids


@pytest.fixture(scope="session")
def golden_lst(project_root: Path) -> Path:
    """Folder of the reference outputs (format: its README)."""
    return project_root / "tests" / "parity" / "golden" / "lst"


@pytest.fixture(scope="session")
def golden(golden_lst: Path) -> dict[str, Any]:
    """The JSON files that the preparation is compared with, by name."""
    names = ("lvis_mini_train", "lvis_mini_val", "splits", "replay", "grow", "eval", "distill_logits")
    return {name: json.loads((golden_lst / f"{name}.json").read_text()) for name in names}


@pytest.fixture(scope="session")
def mini_plan(golden: dict[str, Any]) -> PhasePlan:
    """Base 6 classes, two steps of 5."""
    train = golden["lvis_mini_train"]
    return build_plan(train, sorted_category_ids(train), 6, 5)


def tiny_overrides(data: Path, output: Path) -> list[Any]:
    """KEY VALUE pairs of a small LST run: base 12 classes, two steps of 6, a few iterations each."""
    values: dict[str, Any] = {
        "LST.ENABLED": True,
        "LST.ANN_TRAIN": str(data / "train.json"),
        "LST.ANN_VAL": str(data / "val.json"),
        "LST.IMG_TRAIN": str(data / "images" / "train"),
        "LST.IMG_VAL": str(data / "images" / "val"),
        "LST.BASE_SIZE": 12,
        "LST.STEP_SIZE": 6,
        "LST.FREEZE_BASE": 0,
        "LST.ROI_BATCH_STEP": 16,
        "LST.SOLVER_BASE": {"MAX_ITER": 4},
        "LST.SOLVER_STEP": {"MAX_ITER": 3, "BASE_LR": 0.002},
        "OUTPUT_DIR": str(output),
        "INPUT.MIN_SIZE_TRAIN": (64,),
        "INPUT.MAX_SIZE_TRAIN": 64,
        "INPUT.MIN_SIZE_TEST": 64,
        "INPUT.MAX_SIZE_TEST": 64,
        "MODEL.DEVICE": "cpu",
        "MODEL.MASK_ON": True,
        "MODEL.BACKBONE.CONV_BODY": "R-10-FPN",
        "MODEL.RESNETS.TRANS_FUNC": "BasicBlockWithGN",
        "MODEL.RESNETS.STEM_FUNC": "StemWithGN",
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
        "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": 16,
        "MODEL.GROUP_NORM.NUM_GROUPS": 4,
        "MODEL.RPN.USE_FPN": True,
        "MODEL.RPN.ANCHOR_SIZES": (8, 16, 32, 64, 128),
        "MODEL.RPN.ANCHOR_STRIDE": (4, 8, 16, 32, 64),
        "MODEL.RPN.PRE_NMS_TOP_N_TRAIN": 100,
        "MODEL.RPN.PRE_NMS_TOP_N_TEST": 50,
        "MODEL.RPN.POST_NMS_TOP_N_TRAIN": 50,
        "MODEL.RPN.POST_NMS_TOP_N_TEST": 25,
        "MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN": 50,
        "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": 25,
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 32,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 32,
        "MODEL.ROI_HEADS.DETECTIONS_PER_IMG": 20,
        "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR": "FPN2MLPCosineFeatureExtractor",
        "MODEL.ROI_BOX_HEAD.PREDICTOR": "FPNCosinePredictor",
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
        "MODEL.ROI_BOX_HEAD.POOLER_SCALES": (0.25, 0.125, 0.0625, 0.03125),
        "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM": 32,
        "MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR": "MaskRCNNFPNFeatureExtractor",
        "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
        "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
        "MODEL.ROI_MASK_HEAD.POOLER_SCALES": (0.25, 0.125, 0.0625, 0.03125),
        "MODEL.ROI_MASK_HEAD.CONV_LAYERS": (16, 16),
        "MODEL.ROI_MASK_HEAD.RESOLUTION": 28,
        "MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR": False,
        "MODEL.ROI_MASK_HEAD.USE_BBOX2MASK": True,
        "MODEL.ROI_MASK_HEAD.USE_MLPMASK": True,
        "DATALOADER.NUM_WORKERS": 0,
        "DATALOADER.SIZE_DIVISIBILITY": 32,
        "SOLVER.IMS_PER_BATCH": 2,
        "SOLVER.BASE_LR": 0.005,
        "SOLVER.CHECKPOINT_PERIOD": 1,
        "TEST.IMS_PER_BATCH": 8,
    }
    return [item for pair in values.items() for item in pair]


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demo images of 64 pixels with 24 categories."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    generate_demo(folder, DemoOptions(train=60, val=12, size=64), report=lambda _: None)
    return folder


@pytest.fixture(scope="session")
def make_tiny_cfg(demo_data: Path) -> Callable[[Path], CfgNode]:
    """Gives the configuration of the tiny run for an output folder."""
    return lambda output: clone_with(get_cfg(), tiny_overrides(demo_data, output))


@pytest.fixture(scope="session")
def finished(make_tiny_cfg: Callable[[Path], CfgNode], tmp_path_factory: pytest.TempPathFactory) -> CfgNode:
    """An unbroken run of base and two steps; tests must not change its folder.

    Its tests run in one process (`ONE_PROCESS` in tests/conftest.py), which makes it for all.
    """
    cfg = make_tiny_cfg(tmp_path_factory.mktemp("finished") / "run")
    cfg = clone_with(cfg, ["SOLVER.LOG_PERIOD", 1])
    run_lst(cfg)
    return cfg


@pytest.fixture
def tiny_cfg(make_tiny_cfg: Callable[[Path], CfgNode], tmp_path: Path) -> CfgNode:
    """The tiny run with its output below the test's folder."""
    return make_tiny_cfg(tmp_path / "run")
