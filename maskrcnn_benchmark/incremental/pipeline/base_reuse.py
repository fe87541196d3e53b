"""Reuse the finished base phase of another run (LST.BASE_RUN)."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from maskrcnn_benchmark.engine.writers import METRICS_FILE
from maskrcnn_benchmark.incremental.pipeline.damage import find_damage
from maskrcnn_benchmark.incremental.pipeline.run_state import RunState
from maskrcnn_benchmark.incremental.pipeline.stage import Stage, begin, difference
from maskrcnn_benchmark.incremental.plan.run_folder import (
    CONFIG_FILE,
    FINAL_WEIGHTS,
    STATE_FILE,
    phase_folder,
)
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.files import atomic_path

logger = logging.getLogger(__name__)
_TRAIN = "phase_0/train"


def reuse_base_phase(stages: Sequence[Stage], state: RunState, run_dir: Path, base_run: str) -> bool:
    """Copy the results of the base phase's `stages` from run folder `base_run` and record them as done.

    A base phase that was begun here stays as it is. The report is reused only when it fits too; else it is
    made here. To be called by rank 0. Returns whether anything was reused.

    Raises:
        ConfigError: when `base_run` has no finished base phase of the same data and settings.
    """
    if state.record(_TRAIN) is not None:
        return False
    source = Path(base_run)
    if source.resolve() == run_dir.resolve() or not (source / STATE_FILE).is_file():
        raise ConfigError(
            f"LST.BASE_RUN: {source} is not the folder of another run; give one that has a {STATE_FILE}"
        )
    source_state = RunState(source / STATE_FILE)
    for stage in stages:
        reason = _mismatch(stage, source_state, state, source, run_dir)
        if reason and stage.key == _TRAIN:
            raise ConfigError(
                f"LST.BASE_RUN: the base phase of {source} cannot be reused ({reason}); give another "
                'run, or LST.BASE_RUN "" to train it here'
            )
        if reason:
            break
        metrics = [path.with_name(METRICS_FILE) for path in stage.outputs if path.name == FINAL_WEIGHTS]
        for path in (*stage.outputs, *metrics):
            if (source / path.relative_to(run_dir)).is_file():
                with atomic_path(path) as temporary:
                    shutil.copyfile(source / path.relative_to(run_dir), temporary)
        begin(stage, state, finished=True)
        state.record_outputs(stage.key, stage.outputs, stage.side)
        logger.info("=== %s: reused from %s", stage.key, source)
    return True


def _mismatch(stage: Stage, source_state: RunState, state: RunState, source: Path, run_dir: Path) -> str:
    """Reason why a stage of another run cannot replace this one; "" when it can."""
    record = source_state.record(stage.key)
    if record is None or not source_state.finished(stage.key):
        return f"{stage.key} is not finished there"
    missing = [path for path in stage.outputs if not (source / path.relative_to(run_dir)).is_file()]
    if missing:
        return f"{missing[0].name} is missing there"
    damages = [damage for damage in find_damage(source_state, [stage.key]) if not damage.side]
    if damages:
        return f"{damages[0].path.name} is damaged there, it {damages[0].problem}; its command repairs it"
    return difference(stage, record, state, phase_folder(source, 0) / CONFIG_FILE)
