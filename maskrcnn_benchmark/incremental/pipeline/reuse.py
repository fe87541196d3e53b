"""Taking over the finished base phase of another run, so that runs share it (LST.BASE_RUN)."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from maskrcnn_benchmark.engine.writers import METRICS_FILE
from maskrcnn_benchmark.incremental.pipeline.phase_config import FINAL_WEIGHTS
from maskrcnn_benchmark.incremental.pipeline.stage import Stage, begin, difference
from maskrcnn_benchmark.incremental.pipeline.state import RunState
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.files import atomic_path

logger = logging.getLogger(__name__)
_TRAIN = "phase_0/train"


def adopt_base(stages: Sequence[Stage], state: RunState, run_dir: Path, base_run: str) -> bool:
    """Copy the results of the base phase's `stages` from run folder `base_run` and record them as done.

    A base phase that was begun here stays as it is. The report is taken over only when it fits too; else it
    is made here. To be called by rank 0. Returns whether anything was taken over.

    Raises:
        ConfigError: when `base_run` has no finished base phase of the same data and settings.
    """
    if state.record(_TRAIN) is not None:
        return False
    source = Path(base_run)
    if source.resolve() == run_dir.resolve() or not (source / "state.json").is_file():
        raise ConfigError(f"LST.BASE_RUN: {source} is not the folder of another run")
    theirs = RunState(source / "state.json")
    for stage in stages:
        reason = _misfit(stage, theirs, state, source, run_dir)
        if reason and stage.key == _TRAIN:
            raise ConfigError(
                f"LST.BASE_RUN: the base phase of {source} cannot be taken over ({reason}); give another "
                'run, or LST.BASE_RUN "" to train it here'
            )
        if reason:
            break
        curve = [path.with_name(METRICS_FILE) for path in stage.outputs if path.name == FINAL_WEIGHTS]
        for path in (*stage.outputs, *curve):
            if (source / path.relative_to(run_dir)).is_file():
                with atomic_path(path) as temporary:
                    shutil.copyfile(source / path.relative_to(run_dir), temporary)
        begin(stage, state, finished=True)
        logger.info("=== %s: taken over from %s", stage.key, source)
    return True


def _misfit(stage: Stage, theirs: RunState, state: RunState, source: Path, run_dir: Path) -> str:
    """Why a stage of another run does not stand for this one, in words; "" when it does."""
    record = theirs.record(stage.key)
    if record is None or not theirs.finished(stage.key):
        return f"{stage.key} is not finished there"
    gone = [path for path in stage.outputs if not (source / path.relative_to(run_dir)).is_file()]
    if gone:
        return f"{gone[0].name} is missing there"
    return difference(stage, record, state, source / "phase_0" / "config.yml")
