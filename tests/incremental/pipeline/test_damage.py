"""A run with a damaged file of any stage ends with the files of an undamaged run, and says what it redid."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.io import read_checkpoint, save_atomic
from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.incremental.comparison.runs import read_run
from maskrcnn_benchmark.incremental.pipeline import runner
from maskrcnn_benchmark.incremental.pipeline.scheduler import run_lst
from maskrcnn_benchmark.incremental.pipeline.scheduler import test_phase as report_of_phase
from maskrcnn_benchmark.utils.errors import ConfigError, DataError, WriteError

Change = Callable[[Path], object]


def flip(path: Path) -> None:
    """Flip a bit in the middle; size and time stay."""
    status, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def folder(path: Path) -> None:
    """Put a folder in the place of a file."""
    path.unlink()
    path.mkdir()


def empty(path: Path) -> None:
    """Leave no content."""
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    """Replace the content."""
    path.write_bytes(bytes(range(256)))


@pytest.fixture(scope="module")
def snapshots(
    make_tiny_cfg: Callable[[Path], CfgNode], tmp_path_factory: pytest.TempPathFactory
) -> tuple[CfgNode, Path]:
    """Configuration of an undamaged run (base and one step), and copies of its folder after each stage."""
    out = tmp_path_factory.mktemp("damage")
    options = ["LST.PHASES", (0, 1), "LST.SOLVER_BASE", {"MAX_ITER": 3}, "LST.SOLVER_STEP", {"MAX_ITER": 2}]
    cfg, finish = clone_with(make_tiny_cfg(out / "run"), options), runner.StageRunner._finish

    def keep(self: runner.StageRunner, stage: runner.Stage) -> None:
        finish(self, stage)
        shutil.copytree(out / "run", out / stage.key.replace("/", " "))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner.StageRunner, "_finish", keep)
        run_lst(cfg)
    shutil.copytree(out / "run", out / "whole")
    return cfg, out


def put_back(snapshots: tuple[CfgNode, Path], name: str = "whole") -> Path:
    """The run folder as it was after a stage, or at its end."""
    run = snapshots[1] / "run"
    shutil.rmtree(run)
    shutil.copytree(snapshots[1] / name, run)
    return run


def contents(run: Path) -> dict[str, bytes]:
    """Bytes of all files of a run but those that hold times."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and not path.name.startswith("state.") and path.suffix != ".jsonl"
        if ".damaged" not in str(path) and path.parent.name != "tensorboard"
    }


# snapshot, damaged files with the stage that is done again ("": only the file is written again)
CASES: dict[str, tuple[str, dict[str, tuple[Change, str]]]] = {
    "teacher": ("whole", {"phase_0/model_final.pth": (flip, "phase_0/train")}),
    "made for a step": (
        "whole",
        {
            "phase_1/distill/logits.npy": (flip, "phase_1/dump"),
            "phase_1/init.pth": (empty, "phase_1/grow"),
            "phase_1/replay.json": (Path.unlink, "phase_1/replay"),
            "classes.json": (garbage, "prepare"),
        },
    ),
    "read by nobody": (
        "whole",
        {
            "phase_0/report/per_class.csv": (Path.unlink, "phase_0/report"),
            "summary.png": (flip, ""),
            "config.yml": (garbage, ""),
            "phase_1/config.yml": (folder, ""),
            "phase_1/last_checkpoint": (garbage, ""),
        },
    ),
    "state": ("whole", {"state.json": (flip, "")}),
    "both models": (
        "whole",
        {
            "phase_0/model_final.pth": (folder, "phase_0/train"),
            "phase_1/model_final.pth": (flip, "phase_1/train"),
        },
    ),
    "before the step": ("phase_0 report", {"phase_0/model_final.pth": (flip, "phase_0/train")}),
    "before training": ("phase_1 replay", {"phase_1/distill/index.npz": (garbage, "phase_1/dump")}),
}


SLOW = ("both models", "before the step", "before training")


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CASES]
)
def test_it_is_set_aside_named_and_done_again(
    snapshots: tuple[CfgNode, Path], case: str, caplog: pytest.LogCaptureFixture
) -> None:
    start, files = CASES[case]
    run = put_back(snapshots, start)
    for name, (change, _) in files.items():
        change(run / name)
    damaged = {name: (run / name).read_bytes() for name in files if (run / name).is_file()}
    with caplog.at_level(logging.INFO):
        run_lst(snapshots[0])
    assert contents(run) == contents(snapshots[1] / "whole")
    for name, (_, stage) in files.items():
        lines = [record.message for record in caplog.records if f"{run / name} is damaged" in record.message]
        assert len(lines) == 1 and (f"{stage} is done again" if stage else "written again") in lines[0], name
        if name in damaged:
            assert (run / f"{name}.damaged").read_bytes() == damaged[name]
    redone = {stage for _, stage in files.values()} - {""}
    begun = {m.split()[1].rstrip(":") for m in caplog.messages if m.startswith("===")}
    assert begun == redone if start == "whole" else redone <= begun
    assert caplog.text.count("the same files to the bit") == len(redone)
    put_aside = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    run_lst(snapshots[0])
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == put_aside


@pytest.mark.slow
def test_damage_during_the_run(
    snapshots: tuple[CfgNode, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is damaged after the check at the start is not read either."""
    run, finish = put_back(snapshots, "phase_0 report"), runner.StageRunner._finish
    faults: list[str] = []

    def damage(self: runner.StageRunner, stage: runner.Stage) -> None:
        finish(self, stage)
        if stage.key == "phase_1/replay" and not faults:
            faults.append(stage.key)
            flip(run / "phase_1" / "distill" / "logits.npy")
            (run / "phase_1" / "init.pth").unlink()

    monkeypatch.setattr(runner.StageRunner, "_finish", damage)
    with caplog.at_level(logging.INFO):
        run_lst(snapshots[0])
    assert contents(run) == contents(snapshots[1] / "whole")
    assert caplog.text.count("=== phase_1/dump") == caplog.text.count("=== phase_1/grow") == 2
    assert caplog.text.count("=== phase_1/train") == 1


def test_metrics_of_a_finished_phase(
    snapshots: tuple[CfgNode, Path], caplog: pytest.LogCaptureFixture
) -> None:
    run = put_back(snapshots)
    path = run / "phase_0" / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"\xff\xfe" + lines[0] + b"".join(lines[1:])[:-9])
    with caplog.at_level(logging.INFO):
        run_lst(snapshots[0])
    assert "phase_0/metrics.jsonl is damaged" in caplog.text and "===" not in caplog.text
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert kept == [json.loads(line) for line in lines[1:-1]]
    assert path.with_name("metrics.jsonl.damaged").exists()


def test_a_run_of_an_earlier_version_is_recorded_on_the_way(
    snapshots: tuple[CfgNode, Path], caplog: pytest.LogCaptureFixture
) -> None:
    run = put_back(snapshots)
    content = json.loads((run / "state.json").read_text())
    for key in ("run", "outputs", "before", "checksum"):
        del content[key]
    (run / "state.json").write_text(json.dumps(content, indent=1))
    (run / "state.backup.json").unlink()
    # the hash from the time when the step read it is still known
    flip(run / "phase_1" / "replay.json")
    with caplog.at_level(logging.INFO):
        run_lst(snapshots[0])
    assert "begun by an earlier version: the SHA-256 of 2" in caplog.text
    assert "phase_1/replay is done again" in caplog.text
    assert contents(run) == contents(snapshots[1] / "whole")
    assert set(json.loads((run / "state.json").read_text())["outputs"]) >= {
        "prepare",
        "phase_1/dump",
        "summary",
    }


@pytest.mark.slow
def test_another_result_is_carried_on(
    snapshots: tuple[CfgNode, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a GPU: what was made from the lost model is done again, the earlier training is kept."""
    run, finish = put_back(snapshots), runner.StageRunner._finish

    def change(self: runner.StageRunner, stage: runner.Stage) -> None:
        if stage.key == "phase_0/train":
            content = read_checkpoint(stage.outputs[0])
            content["model"]["roi_heads.box.predictor.cls_score.weight"] += 0.001
            save_atomic(content, stage.outputs[0])
        finish(self, stage)

    monkeypatch.setattr(runner.StageRunner, "_finish", change)
    (run / "phase_0" / "model_final.pth").unlink()
    with caplog.at_level(logging.INFO):
        run_lst(snapshots[0])
    assert "phase_0/train was done again and gave other files" in caplog.text
    begun = {m.split()[1].rstrip(":") for m in caplog.messages if m.startswith("===")}
    assert begun == {f"phase_{p}/{name}" for p in (0, 1) for name in ("train", "report")} | {
        "phase_1/dump",
        "phase_1/grow",
    }
    assert (run / "phase_1" / "previous" / "model_final.pth").exists()


def test_other_settings_without_effect_change_nothing_else(
    snapshots: tuple[CfgNode, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """The checkpoint holds the settings, so its bytes differ; its weights do not."""
    flip(put_back(snapshots) / "phase_0" / "model_final.pth")
    for _ in range(2):
        with caplog.at_level(logging.INFO):
            run_lst(clone_with(snapshots[0], ["SOLVER.KEEP_CHECKPOINTS", 3]))
    assert "phase_0/train was done again and gave the same weights to the bit" in caplog.text
    begun = [m.split()[1].rstrip(":") for m in caplog.messages if m.startswith("===")]
    assert begun == ["phase_0/train"]


@pytest.mark.parametrize("name", ["classes.json", "phase_1/report/metrics.json"])
def test_tools_do_not_read_a_damaged_file(snapshots: tuple[CfgNode, Path], name: str) -> None:
    flip(put_back(snapshots) / name)
    with pytest.raises(
        DataError, match=rf"{name} is damaged: it has another content.*training command of its run"
    ):
        read_run(snapshots[1] / "run")


def test_a_damaged_model_is_not_tested(snapshots: tuple[CfgNode, Path]) -> None:
    run = put_back(snapshots)
    flip(run / "phase_1" / "model_final.pth")
    with pytest.raises(DataError, match=r"phase_1/model_final\.pth is damaged"):
        report_of_phase(snapshots[0], 1)
    assert not list(run.rglob("*.damaged"))


def test_a_damaged_base_phase_is_not_reused(snapshots: tuple[CfgNode, Path], tmp_path: Path) -> None:
    run = put_back(snapshots)
    flip(run / "phase_0" / "model_final.pth")
    other = ["OUTPUT_DIR", str(tmp_path / "other"), "LST.BASE_RUN", str(run)]
    with pytest.raises(ConfigError, match=r"cannot be reused \(model_final\.pth is damaged there"):
        run_lst(clone_with(snapshots[0], other))


def test_a_link_in_a_phase_is_refused_by_name(snapshots: tuple[CfgNode, Path], tmp_path: Path) -> None:
    run = put_back(snapshots)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (run / "phase_1" / "replay.json").unlink()
    (run / "phase_1" / "replay.json").symlink_to(victim)
    with pytest.raises(WriteError, match=r"phase_1/replay\.json is a symbolic link"):
        run_lst(snapshots[0])
    assert victim.read_text() == "precious"
