"""Ordinary training and testing from a config: checks before the first iteration, and the results."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import clone_with, load_config
from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo
from maskrcnn_benchmark.engine.train_and_test import (
    build_seeded_model,
    check_expected,
    load_test_weights,
    test_plain,
    train_plain,
)
from maskrcnn_benchmark.utils.errors import ConfigError, DataError, UsageError


@pytest.fixture(scope="module")
def cfg(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> CfgNode:
    """The tiny Mask R-CNN on 12 + 6 demo images."""
    folder = tmp_path_factory.mktemp("data") / "demo"
    generate_demo(folder, DemoOptions(train=12, val=6, size=64, seed=0, classes=6), report=lambda text: None)
    return load_config(
        project_root / "tests" / "engine" / "tiny.yaml",
        [
            *("DATASETS.TRAIN", f"('lvis:{folder}/train.json@{folder}/images/train',)"),
            *("DATASETS.TEST", f"('lvis:{folder}/val.json@{folder}/images/val',)"),
            *("OUTPUT_DIR", str(tmp_path_factory.mktemp("out"))),
        ],
    )


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (("MODEL.ROI_BOX_HEAD.NUM_CLASSES", 81), ConfigError, "set MODEL.ROI_BOX_HEAD.NUM_CLASSES 7"),
        (("DATASETS.TRAIN", ()), ConfigError, "DATASETS.TRAIN is empty"),
        (("DATASETS.TRAIN", ("coco:none.json@nowhere",)), DataError, "none.json does not exist"),
        (("MODEL.WEIGHT", "missing.pth"), UsageError, "missing.pth"),
    ],
)
def test_bad_input_is_found_before_training(
    cfg: CfgNode, tmp_path: Path, overrides: tuple, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train_plain(clone_with(cfg, ["OUTPUT_DIR", str(tmp_path), *overrides]))


def test_training_and_testing_two_sets(cfg: CfgNode, tmp_path: Path) -> None:
    train_set, val_set = cfg.DATASETS.TRAIN[0], cfg.DATASETS.TEST[0]
    both = ["DATASETS.TRAIN", (train_set, val_set), "DATASETS.TEST", (val_set, train_set)]
    used = clone_with(cfg, ["OUTPUT_DIR", str(tmp_path), "SOLVER.MAX_ITER", 2, *both])
    model, summary = train_plain(used)
    assert summary.iterations == 2
    reports = test_plain(used, model)
    assert list(reports) == ["val", "train"]
    assert {"bbox/AP", "segm/AP50", "segm/APr"} <= set(reports["val"].metrics)
    assert model.training
    again = build_seeded_model(used)
    assert load_test_weights(used, again, None) == str(tmp_path / "model_final.pth")
    assert test_plain(used, again)["val"].metrics == reports["val"].metrics
    with pytest.raises(ConfigError, match="two sets called val"):
        test_plain(clone_with(used, ["DATASETS.TEST", (val_set, val_set)]), model)


def test_nothing_to_test(cfg: CfgNode, tmp_path: Path) -> None:
    used = clone_with(cfg, ["OUTPUT_DIR", str(tmp_path), "DATASETS.TEST", ()])
    model = build_seeded_model(used)
    with pytest.raises(ConfigError, match="DATASETS.TEST is empty"):
        test_plain(used, model)
    augmented = clone_with(cfg, ["TEST.BBOX_AUG.ENABLED", True, "MODEL.RPN_ONLY", True])
    with pytest.raises(ConfigError, match=r"TEST\.BBOX_AUG\.ENABLED"):
        test_plain(augmented, build_seeded_model(augmented))
    with pytest.raises(ConfigError, match="no weights to test"):
        load_test_weights(used, model, None)


def test_expected_results(cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    expected = [["bbox", "AP", [0.5, 0.01]], ["segm", "AP", [0.4, 0.01]]]
    used = clone_with(cfg, ["TEST.EXPECTED_RESULTS", expected])
    with caplog.at_level(logging.INFO):
        assert check_expected(used, {"bbox/AP": 0.53, "segm/AP": 0.4})
        assert not check_expected(used, {"bbox/AP": 0.55, "segm/AP": 0.4})
        assert not check_expected(used, {"bbox/AP": 0.5})
    assert "NOT as expected" in caplog.text
