"""Run state and the decision about a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maskrcnn_benchmark.incremental.pipeline.run_state import RunState
from maskrcnn_benchmark.incremental.pipeline.stage import RESUME, RUN, SKIP, Stage, decide
from maskrcnn_benchmark.utils.errors import DataError, UsageError


def stage(folder: Path, phase: int = 0, name: str = "train", **settings: Any) -> Stage:
    """A stage that reads in.txt and writes out.txt of its phase folder."""
    own = folder / f"phase_{phase}"
    own.mkdir(exist_ok=True)
    return Stage(
        phase=phase,
        name=name,
        inputs={"data": folder / "in.txt"},
        settings=settings,
        outputs=(own / "out.txt",),
        run=lambda: None,
        config_file=own / "config.yml",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in.txt").write_text("1")
    return tmp_path


def complete(one: Stage, state: RunState) -> None:
    """Execute a stage."""
    for path in one.outputs:
        path.write_text("done")
    state.finish(one.key)


def test_a_stage_is_done_once(folder: Path) -> None:
    one, state = stage(folder, lr=1), RunState(folder / "state.json")
    assert decide(one, state, folder) == RUN
    assert decide(one, RunState(folder / "state.json"), folder) == RESUME
    complete(one, state)
    assert decide(one, RunState(folder / "state.json"), folder) == SKIP


def test_changes_make_it_run_again(folder: Path) -> None:
    state = RunState(folder / "state.json")
    one = stage(folder, lr=1)
    decide(one, state, folder)
    complete(one, state)
    (folder / "in.txt").write_text("22")
    assert decide(one, state, folder) == RUN
    complete(one, state)
    assert decide(stage(folder, lr=2), state, folder) == RUN
    complete(one, state)
    one.outputs[0].unlink()
    assert decide(stage(folder, lr=2), state, folder) == RUN
    assert decide(stage(folder, lr=3), state, folder) == RUN  # begun with other settings: no resume


def test_refused_when_a_later_phase_depends_on_it(folder: Path) -> None:
    state = RunState(folder / "state.json")
    for phase in (0, 1):
        decide(stage(folder, phase, lr=1), state, folder)
        complete(stage(folder, phase, lr=1), state)
    with pytest.raises(
        UsageError, match="phase_0/train would have to be done again .*phase 1 was made from its result"
    ):
        decide(stage(folder, 0, lr=2), state, folder)
    assert decide(stage(folder, 0, lr=1), state, folder) == SKIP  # the refusal changed nothing
    (folder / "in.txt").write_text("22")
    with pytest.raises(UsageError, match="data changed"):
        decide(stage(folder, 0, lr=1), state, folder)
    assert decide(stage(folder, 0, "report", lr=2), state, folder) == RUN  # nothing depends on a report
    (folder / "phase_1" / "out.txt").unlink()
    (folder / "phase_1").rmdir()
    assert decide(stage(folder, 0, lr=2), state, folder) == RUN  # the dependent folder was deleted


def test_file_hashes_follow_the_content(folder: Path) -> None:
    state = RunState(folder / "state.json")
    first = state.file_hash(folder / "in.txt")
    assert state.file_hash(folder / "in.txt") == first
    (folder / "in.txt").write_text("other")
    assert state.file_hash(folder / "in.txt") != first
    with pytest.raises(DataError, match="does not exist"):
        state.file_hash(folder / "gone.txt")


def test_foreign_state_file(folder: Path) -> None:
    (folder / "state.json").write_text('{"version": 99}')
    with pytest.raises(DataError, match="not a state file"):
        RunState(folder / "state.json")
