"""Training and testing give the same numbers on one, two and three processes with the same total batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.config.load import clone_with, load_config
from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo
from maskrcnn_benchmark.engine.train_and_test import test_plain as run_test
from maskrcnn_benchmark.engine.train_and_test import train_plain

pytestmark = pytest.mark.dist
MACHINE = ("time", "data", "eta_seconds")


@pytest.fixture(scope="module")
def cfg(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> CfgNode:
    """The tiny Mask R-CNN, five updates of two batches of six images, evaluated once on the way."""
    folder = tmp_path_factory.mktemp("data") / "demo"
    generate_demo(folder, DemoOptions(train=20, val=7, size=64, seed=0, classes=6), report=lambda text: None)
    return load_config(
        project_root / "tests" / "engine" / "tiny.yaml",
        [
            *("DATASETS.TRAIN", f"('lvis:{folder}/train.json@{folder}/images/train',)"),
            *("DATASETS.TEST", f"('lvis:{folder}/val.json@{folder}/images/val',)"),
            *("SOLVER.IMS_PER_BATCH", 6, "SOLVER.ACCUMULATION_STEPS", 2, "SOLVER.TEST_PERIOD", 3),
            *("SOLVER.LOG_PERIOD", 1, "MODEL.RPN.FPN_POST_NMS_PER_BATCH", False),
        ],
    )


def _run(cfg: CfgNode) -> tuple[Any, list[dict[str, float]]]:
    """Averages of the losses on this process; metrics of the final model."""
    model, summary = train_plain(cfg)
    (report,) = run_test(cfg, model).values()
    return summary.losses, report.metrics


def _records(cfg: CfgNode) -> list[dict[str, float]]:
    """What was logged, without what the machine adds."""
    lines = (Path(cfg.OUTPUT_DIR) / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if isinstance(v, float | int) and k not in MACHINE}
        for line in lines
    ]


def test_base_training_and_evaluation(
    cfg: CfgNode, tmp_path: Path, train_ranks: Callable[..., list[Any]]
) -> None:
    runs = {n: clone_with(cfg, ["OUTPUT_DIR", str(tmp_path / str(n))]) for n in (1, 2, 3)}
    ((losses, metrics),) = train_ranks(_run, 1, runs[1])
    weights = read_checkpoint(tmp_path / "1" / "model_final.pth")["model"]
    records, detections = _records(runs[1]), _detections(runs[1])
    assert len(records) == 6 and losses["loss_mask"] > 0 and len(detections) > 20
    for world in (2, 3):
        for found, numbers in train_ranks(_run, world, runs[world]):
            same = {name: value for name, value in losses.items() if name not in MACHINE}
            assert {name: found[name] for name in same} == pytest.approx(same, rel=1e-5)
            assert numbers == pytest.approx(metrics, abs=1e-6)
        for name, tensor in read_checkpoint(tmp_path / str(world) / "model_final.pth")["model"].items():
            torch.testing.assert_close(tensor, weights[name], rtol=1e-5, atol=1e-6)
        for one, other in zip(records, _records(runs[world]), strict=True):
            assert other == pytest.approx(one, rel=1e-5, abs=1e-6)
        for one, other in zip(detections, _detections(runs[world]), strict=True):
            assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
            assert other["score"] == pytest.approx(one["score"], abs=1e-5)
        assert not list((tmp_path / str(world)).rglob(".shards*"))


def test_a_run_resumes_with_another_number_of_ranks(
    cfg: CfgNode, tmp_path: Path, train_ranks: Callable[..., list[Any]]
) -> None:
    runs = {n: clone_with(cfg, ["OUTPUT_DIR", str(tmp_path / n)]) for n in ("whole", "broken")}
    train_ranks(_run, 2, runs["whole"])
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    (tmp_path / "broken" / "model_final.pth").unlink()
    (tmp_path / "broken" / "last_checkpoint").write_text("model_0000004.pth")
    train_ranks(_run, 3, runs["broken"])
    expected = read_checkpoint(tmp_path / "whole" / "model_final.pth")["model"]
    for name, tensor in read_checkpoint(tmp_path / "broken" / "model_final.pth")["model"].items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)
    for one, other in zip(*(_records(run) for run in runs.values()), strict=True):
        assert other == pytest.approx(one, rel=1e-5, abs=1e-6)


def _detections(cfg: CfgNode) -> list[dict[str, Any]]:
    return json.loads((Path(cfg.OUTPUT_DIR) / "inference" / "val" / "segm.json").read_text())


def test_more_processes_than_images(
    cfg: CfgNode, tmp_path: Path, train_ranks: Callable[..., list[Any]]
) -> None:
    """Testing where a process has no image."""
    spec = cfg.DATASETS.TEST[0]
    annotations = Path(spec.removeprefix("lvis:").split("@")[0])
    data = json.loads(annotations.read_text())
    data["images"] = data["images"][:2]
    kept = {image["id"] for image in data["images"]}
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] in kept]
    (tmp_path / "two.json").write_text(json.dumps(data))
    small = clone_with(
        cfg,
        [
            *("DATASETS.TEST", (f"lvis:{tmp_path}/two.json@{spec.split('@')[1]}",)),
            *("OUTPUT_DIR", str(tmp_path), "SOLVER.MAX_ITER", 1),
        ],
    )
    (_, first), *others = train_ranks(_run, 3, small)
    assert [metrics for _, metrics in others] == [first, first]
    assert {
        d["image_id"] for d in json.loads((tmp_path / "inference" / "two" / "bbox.json").read_text())
    } == kept
