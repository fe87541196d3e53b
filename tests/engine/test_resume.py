"""What an exact resume consists of: optimizer, schedule, scaler, meters, random numbers, batches."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.engine.train import TrainSummary, train
from maskrcnn_benchmark.engine.writers import METRICS_FILE, read_metrics
from maskrcnn_benchmark.utils.errors import UsageError

CLASSES = ["__background__", "thing"]
Fakes = dict[str, Callable]
TIMES = ("time", "data", "eta_seconds")
SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"LR_SCHEDULER": "cosine", "WARMUP_ITERS": 4}, "float16"),
    ({"OPTIMIZER": "ADAMW", "LR_SCHEDULER": "cosine", "ACCUMULATION_STEPS": 2}, "float32"),
    ({"STEPS": (3, 7), "WARMUP_METHOD": "constant", "WARMUP_ITERS": 5}, "bfloat16"),
]


class _Killed(BaseException):
    """Ends a run without any of its handlers."""


def _run(
    cfg: CfgNode, model: nn.Module, stream: Callable, folder: Path, iterations: int = 10
) -> TrainSummary:
    return train(cfg, model, stream, output_dir=str(folder), max_iter=iterations, classes=CLASSES)


def _dying(fake: Fakes, after: int) -> Callable[[int], Iterator]:
    """The stream, broken off after `after` batches of the whole run."""

    def batches(start: int) -> Iterator:
        yield from islice(fake["stream"](start), after - start)
        raise _Killed

    return batches


def _final(folder: Path) -> dict[str, Any]:
    """The last checkpoint without what depends on the folder."""
    content = torch.load(folder / "model_final.pth", weights_only=True)
    return {key: value for key, value in content.items() if key not in ("config", "versions")}


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b)


@pytest.mark.parametrize(("settings", "dtype"), SETTINGS, ids=["cosine", "adamw", "steps"])
def test_killed_at_any_iteration_the_last_checkpoint_is_the_same(
    fake: Fakes, tmp_path: Path, settings: dict[str, Any], dtype: str
) -> None:
    cfg = fake["cfg"](**{"CHECKPOINT_PERIOD": 2, "LOG_PERIOD": 1, **settings})
    cfg.defrost()
    cfg.DTYPE = dtype
    expected = _run(cfg, fake["model"](), fake["stream"], tmp_path / "whole")
    micro = cfg.SOLVER.ACCUMULATION_STEPS
    for after in (1, 3, 4, 7, 9):
        torch.manual_seed(after)
        np.random.seed(after)
        random.seed(after)
        with pytest.raises(_Killed):
            _run(cfg, fake["model"](), _dying(fake, after * micro), tmp_path / "broken")
    found = _run(cfg, fake["model"](), fake["stream"], tmp_path / "broken")
    assert found.start_iteration == 8
    whole, broken = _final(tmp_path / "whole"), _final(tmp_path / "broken")
    assert set(whole) == {
        *("model", "optimizer", "scheduler", "scaler", "iteration", "meters", "classes"),
    }
    for key in whole:
        assert _equal(whole[key], broken[key]), key
    assert len(whole["optimizer"]["state"]) == 4 and whole["meters"]["loss"]["count"] == 10
    for name in ("loss", "loss_a", "loss_b", "grad_norm"):
        assert found.losses[name] == expected.losses[name]
    records = [
        [{k: v for k, v in r.items() if k not in TIMES} for r in read_metrics(tmp_path / run / METRICS_FILE)]
        for run in ("whole", "broken")
    ]
    assert records[0] == records[1] and len(records[0]) == 10


def test_the_loss_scale_is_resumed(fake: Fakes, tmp_path: Path) -> None:
    class Steep(nn.Module):
        """Gradients that overflow float16 until the scale has been halved three times."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, inputs: Any) -> dict[str, torch.Tensor]:
            return {"loss_only": (self.weight * 3e34 / 4).sum()}

    cfg = fake["cfg"](BASE_LR=1e-40, CHECKPOINT_PERIOD=1)
    cfg.defrost()
    cfg.DTYPE = "float16"
    whole = _run(cfg, Steep(), fake["stream"], tmp_path / "whole")
    for after in (1, 2, 5):
        with pytest.raises(_Killed):
            _run(cfg, Steep(), _dying(fake, after), tmp_path / "broken")
    broken = _run(cfg, Steep(), fake["stream"], tmp_path / "broken")
    scalers = [_final(tmp_path / run)["scaler"] for run in ("whole", "broken")]
    assert scalers[0] == scalers[1]
    assert scalers[0]["scale"] < 65536 and scalers[0]["_growth_tracker"] > 0
    assert whole.losses["grad_norm"] == broken.losses["grad_norm"]


def test_a_shorter_run_is_refused(fake: Fakes, tmp_path: Path) -> None:
    _run(fake["cfg"](), fake["model"](), fake["stream"], tmp_path)
    with pytest.raises(
        UsageError, match=r"is at iteration 10, past SOLVER.MAX_ITER 6: set SOLVER.MAX_ITER 10 or more"
    ):
        _run(fake["cfg"](), fake["model"](), fake["stream"], tmp_path, 6)


def test_changed_settings_are_told(fake: Fakes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _run(fake["cfg"](MAX_ITER=6), fake["model"](), fake["stream"], tmp_path, 6)
    with caplog.at_level(logging.WARNING, "maskrcnn_benchmark"):
        summary = _run(fake["cfg"](MAX_ITER=8, BASE_LR=0.05), fake["model"](), fake["stream"], tmp_path, 8)
    assert (summary.start_iteration, summary.iterations) == (6, 8)
    told = [record.message for record in caplog.records if "settings changed" in record.message]
    assert told == [
        "settings changed since iteration 6: SOLVER.MAX_ITER was 6, now 8; SOLVER.BASE_LR was 0.1, now 0.05"
    ]
    caplog.clear()
    _run(fake["cfg"](MAX_ITER=8, BASE_LR=0.05), fake["model"](), fake["stream"], tmp_path, 8)
    assert "settings changed" not in caplog.text
