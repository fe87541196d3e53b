"""Check what finished stages wrote; set damaged files aside and let their stages be done again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from maskrcnn_benchmark.incremental.pipeline.damage import (
    Damage,
    file_damage,
    find_damage,
    set_aside_in,
)
from maskrcnn_benchmark.incremental.pipeline.run_state import RunState
from maskrcnn_benchmark.incremental.pipeline.stage import Stage

logger = logging.getLogger(__name__)
Restore = Callable[[Path, Path | None], str]
"""Writes a damaged file again, see `Stage.restore`."""


def open_state(path: Path) -> RunState:
    """Open the record of a run; a damaged one of its two files is set aside and written again."""
    state = RunState(path)
    for file, problem in state.damaged.items():
        aside = set_aside_in(path.parent, file)
        kept = f"kept as {aside.name}; " if aside is not None else ""
        logger.warning("%s; %sit is written again from the other copy", problem, kept)
    if state.damaged:
        state.save()
    return state


def check_stages(stages: Sequence[Stage], state: RunState, others: Mapping[str, Restore]) -> None:
    """Check the files of the finished ones of `stages`, and those recorded under the names `others`.

    A damaged file is named in the log and set aside (`set_aside_in`). Its stage is then open, so that it
    is done again; of a file that no stage reads, only that is written again. Files of a run that an earlier
    version began are recorded as they are.
    """
    finished = [stage for stage in stages if state.finished(stage.key)]
    lost = _adopt(finished, state)
    damages = find_damage(state, [*(stage.key for stage in finished), *others])
    repair([*lost, *damages], stages, state, others)


def repair(
    damages: Sequence[Damage], stages: Sequence[Stage], state: RunState, others: Mapping[str, Restore]
) -> None:
    """Set damaged files aside; open their stages again, or write single files again (see `check_stages`)."""
    restore = {stage.key: stage.restore for stage in stages} | dict(others)
    opened = {d.stage for d in damages if not d.side and d.stage not in others}
    for damage in damages:
        single = damage.side or damage.stage in others
        if single and not damage.path.parent.is_dir():
            # whoever deletes the folder of a phase does not miss this file
            state.update_side(damage.stage, damage.path)
            continue
        aside = set_aside_in(state.folder, damage.path)
        kept = f"kept as {aside.name}; " if aside is not None else ""
        if single:
            done = restore[damage.stage](damage.path, aside)
            state.update_side(damage.stage, damage.path)
        else:
            done = f"{damage.stage} is done again"
        logger.warning("%s is damaged: it %s; %s%s", damage.path, damage.problem, kept, done)
    for stage in stages:
        if stage.key in opened:
            stage.step_back()
    if opened:
        state.reopen(sorted(opened))


def damaged_inputs(stage: Stage, state: RunState, *, quick: bool) -> list[Damage]:
    """Inputs of `stage` that an earlier stage wrote and that are damaged now.

    `quick`: read only files whose size or modification time changed since they were hashed.
    """
    damages = (file_damage(state, path, quick=quick) for path in stage.inputs.values())
    return [damage for damage in damages if damage is not None]


def _adopt(stages: Sequence[Stage], state: RunState) -> list[Damage]:
    """Record the files of finished stages of which nothing is recorded; returns those that are missing."""
    lost: list[Damage] = []
    files = 0
    for stage in stages:
        if state.outputs(stage.key):
            continue
        missing = [path for path in stage.outputs if not path.is_file()]
        lost += [Damage(stage.key, path, "is missing", side=False) for path in missing]
        if not missing:
            # a hash that was computed when a later stage read the file says more than the file of today
            state.record_outputs(stage.key, stage.outputs, stage.side, again=False, save=False)
            files += len(state.outputs(stage.key))
    if files:
        state.save()
        logger.info(
            "%s was begun by an earlier version: the SHA-256 of %d files are recorded now, and checked from "
            "here on",
            state.folder,
            files,
        )
    return lost
