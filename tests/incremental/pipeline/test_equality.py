"""A long-tail run gives the same weights, teacher outputs and reports on one, two and three processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.incremental.distillation.dump import CosineExchange
from maskrcnn_benchmark.incremental.distillation.store import DistillHeader, DistillStore, ImageCosines
from maskrcnn_benchmark.incremental.pipeline.scheduler import run_lst
from maskrcnn_benchmark.utils import comm

pytestmark = pytest.mark.dist


def _run(cfg: CfgNode) -> int:
    """Base phase and one step; the number of phases in the summary."""
    return len(run_lst(cfg)["phases"])


def _weights(run: Path, phase: int) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / f"phase_{phase}" / "model_final.pth")["model"]


def _losses(run: Path, phase: int) -> list[dict[str, float]]:
    """The logged losses of a phase by iteration."""
    lines = [json.loads(x) for x in (run / f"phase_{phase}" / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k.startswith("loss")} for line in lines if "loss" in line]


def test_base_and_step(
    make_tiny_cfg: Callable[[Path], CfgNode], tmp_path: Path, train_ranks: Callable[..., list[Any]]
) -> None:
    options = ["SOLVER.IMS_PER_BATCH", 6, "SOLVER.CHECKPOINT_PERIOD", 9, "SOLVER.LOG_PERIOD", 1]
    options += ["LST.PHASES", (0, 1), "MODEL.ROI_MASK_HEAD.USE_MLPMASK", False]
    options += ["MODEL.RPN.FPN_POST_NMS_PER_BATCH", False]
    for world in (1, 2, 3):
        cfg = clone_with(make_tiny_cfg(tmp_path / str(world)), options)
        assert train_ranks(_run, world, cfg) == [2] * world
    alone = tmp_path / "1"
    for world in (2, 3):
        shared = tmp_path / str(world)
        _compare_stores(*(DistillStore(run / "phase_1" / "distill") for run in (alone, shared)))
        for phase in (0, 1):
            losses = _losses(alone, phase)
            assert len(losses) == (4, 3)[phase] and losses[0]["loss_mask"] > 0
            assert ("loss_distill" in losses[0]) == (phase == 1)
            for one, other in zip(losses, _losses(shared, phase), strict=True):
                assert other == pytest.approx(one, rel=1e-4, abs=1e-7)
            found = _weights(shared, phase)
            for name, tensor in _weights(alone, phase).items():
                torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)
            reports = [run / f"phase_{phase}" / "report" / "metrics.json" for run in (alone, shared)]
            first, second = (json.loads(path.read_text())["tasks"]["segm"]["metrics"] for path in reports)
            assert second == pytest.approx(first, abs=1e-6)
        state = json.loads((shared / "state.json").read_text())["stages"]
        assert all(record["finished"] for record in state.values()) and "phase_1/dump" in state
        assert not list(shared.rglob(".shards*"))


def _compare_stores(one: DistillStore, other: DistillStore) -> None:
    assert one.image_ids.tolist() == other.image_ids.tolist()
    for image in one.image_ids.tolist():
        for flip in (0, 1):
            first, second = one.read(image, flip), other.read(image, flip)
            assert first.annotation_ids.tolist() == second.annotation_ids.tolist()
            assert abs(first.cosines - second.cosines).max() < 1e-5


def _merge(folder: Path) -> None:
    """Rank 0 has no rows, rank 1 two images of one and two boxes, rank 2 one."""
    header = DistillHeader(1, 2, "", "", (8, 8), (0, 1), "float32")
    images = {0: [], 1: [5, 3], 2: [4]}[comm.get_rank()]
    rows = [
        ImageCosines(image, flip, np.arange(image % 2 + 1) + image, np.full((image % 2 + 1, 3), image, "f4"))
        for flip in (0, 1)
        for image in images
    ]
    exchange = CosineExchange(folder, header, max_bytes=30)  # two files of rank 1
    exchange.add(rows)
    exchange.write_store(folder / "store")


def test_teacher_outputs_of_ranks_with_and_without_boxes(
    tmp_path: Path, run_ranks: Callable[..., list[Any]]
) -> None:
    run_ranks(_merge, 3, tmp_path / "run")
    store = DistillStore(tmp_path / "run" / "store")
    assert store.image_ids.tolist() == [3, 4, 5]
    assert store.read(5, 1).cosines.tolist() == [[5.0] * 3] * 2
    assert store.read(4, 0).annotation_ids.tolist() == [4]
