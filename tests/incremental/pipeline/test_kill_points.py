"""Kills between two states of a run folder, and how the next start recovers."""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from yacs.config import CfgNode

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.engine import step
from maskrcnn_benchmark.engine.finite_check import NONFINITE_FILE, NonFiniteError, check_finite
from maskrcnn_benchmark.incremental.pipeline import scheduler
from maskrcnn_benchmark.incremental.pipeline.context import RunContext
from maskrcnn_benchmark.incremental.pipeline.phase_data import PhaseData
from maskrcnn_benchmark.incremental.pipeline.run_state import RunState
from maskrcnn_benchmark.incremental.pipeline.scheduler import run_lst
from maskrcnn_benchmark.incremental.pipeline.stage import RESUME, RUN, SKIP, Stage, decide
from maskrcnn_benchmark.incremental.pipeline.train_phase import set_aside_training
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.run_lock import lock_run_folder


class _Killed(BaseException):
    """Ends a run without any of its handlers."""


def _kill(*_: object, **__: object) -> None:
    raise _Killed


@pytest.fixture
def base_cfg(tiny_cfg: CfgNode) -> CfgNode:
    """The base phase alone."""
    return clone_with(tiny_cfg, ["LST.PHASES", (0,), "LST.SOLVER_BASE", {"MAX_ITER": 2}])


def test_a_summary_lost_by_a_kill_is_written_later(
    base_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(base_cfg.OUTPUT_DIR)
    with monkeypatch.context() as patch, pytest.raises(_Killed):
        patch.setattr(scheduler, "write_summary", _kill)
        run_lst(base_cfg)
    assert json.loads((run / "state.json").read_text())["stages"]["phase_0/report"]["finished"]
    assert not (run / "summary.json").exists()
    run_lst(base_cfg)
    names = ("summary.json", "summary.csv", "summary.png")
    before = {name: (run / name).read_bytes() for name in names}
    (run / "summary.csv").unlink()
    run_lst(base_cfg)
    assert {name: (run / name).read_bytes() for name in names} == before


def _stage(folder: Path, restart: Callable[[], None], resumable: bool = False, **settings: Any) -> Stage:
    return Stage(
        phase=0,
        name="train",
        inputs={},
        settings=settings,
        outputs=(folder / "out.txt",),
        run=lambda: None,
        config_file=folder / "config.yml",
        restart=restart,
        resumable=lambda: resumable,
    )


def test_earlier_files_are_set_aside_before_a_stage_counts_as_begun(tmp_path: Path) -> None:
    """Else a kill in between would continue the old training with the new settings."""
    state = RunState(tmp_path / "state.json")
    decide(_stage(tmp_path, lambda: None, lr=1), state, tmp_path)
    with pytest.raises(_Killed):
        decide(_stage(tmp_path, _kill, lr=2), state, tmp_path)
    calls: list[int] = []
    again = RunState(tmp_path / "state.json")
    assert decide(_stage(tmp_path, lambda: calls.append(1), lr=2), again, tmp_path) == RUN
    assert calls == [1]
    assert decide(_stage(tmp_path, _kill, lr=2), again, tmp_path) == RESUME


def test_a_key_that_a_later_version_adds_changes_nothing(tmp_path: Path) -> None:
    state = RunState(tmp_path / "state.json")
    decide(_stage(tmp_path, lambda: None, **{"SOLVER.BASE_LR": 0.5}), state, tmp_path)
    (tmp_path / "out.txt").touch()
    state.finish("phase_0/train")
    added = {"SOLVER.BASE_LR": 0.5, "SOLVER.GAMMA": get_cfg().SOLVER.GAMMA}
    assert decide(_stage(tmp_path, lambda: None, **added), state, tmp_path) == SKIP
    changed = {**added, "SOLVER.GAMMA": 0.7}
    assert decide(_stage(tmp_path, lambda: None, **changed), state, tmp_path) == RUN
    back = {**changed, "SOLVER.GAMMA": get_cfg().SOLVER.GAMMA}
    assert decide(_stage(tmp_path, lambda: None, **back), state, tmp_path) == RUN


def test_only_after_a_non_finite_loss_does_training_resume_with_other_settings(tmp_path: Path) -> None:
    state = RunState(tmp_path / "state.json")
    decide(_stage(tmp_path, lambda: None, lr=1), state, tmp_path)
    assert decide(_stage(tmp_path, _kill, resumable=True, lr=2), state, tmp_path) == RESUME
    (tmp_path / "out.txt").touch()
    state.finish("phase_0/train")
    assert decide(_stage(tmp_path, lambda: None, resumable=True, lr=3), state, tmp_path) == RUN


@pytest.mark.parametrize("killed_after", [0, 1, 2, 3])
def test_setting_aside_loses_nothing(
    tiny_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    run = Path(tiny_cfg.OUTPUT_DIR)
    context = RunContext(tiny_cfg, run, PhaseData(tiny_cfg), lambda path: "")
    folder = run / "phase_1"
    (folder / "previous").mkdir(parents=True)
    (folder / "previous" / "older.pth").touch()
    files = ["last_checkpoint", "model_final.pth", "metrics.jsonl"]
    for name in files:
        (folder / name).write_text(name)
    original, calls = os.replace, []

    def replacement(*args: Any) -> None:
        if len(calls) == killed_after:
            raise _Killed
        calls.append(args)
        original(*args)

    with monkeypatch.context() as patch, pytest.raises(_Killed):
        patch.setattr(os, "replace", replacement)
        set_aside_training(context, 1)
    set_aside_training(context, 1)
    assert sorted(p.name for p in (folder / "previous").iterdir()) == sorted(files)
    assert [p.name for p in folder.iterdir()] == ["previous"]


def test_a_non_finite_loss_in_a_phase_and_its_fix(
    tiny_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_lst(clone_with(tiny_cfg, ["LST.PHASES", (0,)]))
    cfg = clone_with(tiny_cfg, ["LST.PHASES", (1,)])
    folder = Path(cfg.OUTPUT_DIR) / "phase_1"

    def poisoned(values: dict[str, float], passes: list[Any], **more: Any) -> None:
        if more["iteration"] == 3:
            passes[0].losses["loss_mask"] = torch.tensor(float("nan"))
            values = {**values, "loss_mask": float("nan")}
        check_finite(values, passes, **more)

    messages = []
    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(NonFiniteError) as raised:
            patch.setattr(step, "check_finite", poisoned)
            run_lst(cfg)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
    assert "iteration 3: loss_mask is nan" in messages[0] and ".jpg" in messages[0]
    assert json.loads((folder / NONFINITE_FILE).read_text())["causes"][0]["files"]
    assert (folder / "last_checkpoint").read_text().strip() == "model_0000002.pth"
    words = shlex.split(messages[0][messages[0].index("LST.PHASE_OVERRIDES") :])[:2]
    with caplog.at_level(logging.INFO):
        run_lst(clone_with(cfg, words))
    assert f"resuming {folder} at iteration 2" in caplog.text
    assert "settings changed since iteration 2" in caplog.text
    assert "SOLVER.BASE_LR was 0.002, now 0.001" in caplog.text
    assert not (folder / NONFINITE_FILE).exists() and not (folder / "previous").exists()
    assert (folder / "report" / "metrics.json").exists()


def test_a_run_in_progress_is_left_alone(base_cfg: CfgNode) -> None:
    with lock_run_folder(base_cfg.OUTPUT_DIR), pytest.raises(ConfigError, match="is in use by process"):
        run_lst(base_cfg)
    assert not (Path(base_cfg.OUTPUT_DIR) / "state.json").exists()
