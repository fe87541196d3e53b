"""Execute stages: rank 0 decides from the record of the run, checks what they read, records their files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import save_config
from maskrcnn_benchmark.engine.data_check import check_test_set, check_training_set
from maskrcnn_benchmark.incremental.pipeline.base_reuse import reuse_base_phase
from maskrcnn_benchmark.incremental.pipeline.context import RunContext
from maskrcnn_benchmark.incremental.pipeline.damage import require_intact
from maskrcnn_benchmark.incremental.pipeline.phase_data import PhaseData
from maskrcnn_benchmark.incremental.pipeline.prepare import restore_config
from maskrcnn_benchmark.incremental.pipeline.repair import (
    Restore,
    check_stages,
    damaged_inputs,
    open_state,
    repair,
)
from maskrcnn_benchmark.incremental.pipeline.run_state import (
    OTHER_FILES,
    SAME_FILES,
    SAME_WEIGHTS,
    RunState,
)
from maskrcnn_benchmark.incremental.pipeline.stage import RESUME, SKIP, Stage, begin, decide
from maskrcnn_benchmark.incremental.plan.phases import read_plan
from maskrcnn_benchmark.incremental.plan.run_folder import STATE_FILE, run_folder
from maskrcnn_benchmark.utils.comm import on_main
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import sha256_file

logger = logging.getLogger(__name__)
SUMMARY = "summary"
"""Name under which the summary files are recorded."""
_DAMAGED = "damaged"
_RESULTS = {
    SAME_FILES: "the same files to the bit: what was made from them stays",
    SAME_WEIGHTS: "the same weights to the bit: what was made from them stays",
    OTHER_FILES: "other files than before: what was made from them is done again",
}
_ATTEMPTS = 5


class StageRunner:
    """Executes the stages of a run; every method is collective over ranks.

    Attributes:
        context: configuration, folder and data. executed: keys of the stages that this process executed.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """Open the record of the run, see `open_state`."""
        run_dir = run_folder(cfg)
        self.executed: list[str] = []
        self._state: RunState | None = None
        self._data_is_checked = False
        self._known: dict[str, Stage] = {}
        on_main(lambda: self._open(run_dir / STATE_FILE))
        hash_of = self._state.file_hash if self._state is not None else sha256_file
        self.context = RunContext(cfg, run_dir, PhaseData(cfg), hash_of)

    def _open(self, path: Path) -> None:
        self._state = open_state(path)

    @property
    def state(self) -> RunState:
        """Records of the run, which only rank 0 has."""
        assert self._state is not None
        return self._state

    def check(self, stages: Sequence[Stage]) -> None:
        """Check the files of finished stages before anything reads them, see `check_stages`."""
        self._known |= {stage.key: stage for stage in stages}
        on_main(lambda: check_stages(stages, self.state, self._others(stages)))

    def require_intact(self, paths: Sequence[Path]) -> None:
        """Raise DataError when a file that a stage wrote is damaged."""
        on_main(lambda: require_intact(self.state, paths))

    def _others(self, stages: Sequence[Stage]) -> dict[str, Restore]:
        """Files of no stage: the summary, and the settings of each of the phases of `stages`."""
        others: dict[str, Restore] = {}
        for stage in stages:
            if stage.phase >= 0:
                others[SUMMARY] = _leave_to_summary
                others[_config_name(stage)] = partial(self._restore_settings, stage)
        return others

    def _restore_settings(self, stage: Stage, path: Path, _: Path | None) -> str:
        """Write the derived configuration of a phase again; returns what was done."""
        return restore_config(self.context.phase_cfg(read_plan(self.context.run_dir), stage.phase), path)

    def execute_all(self, stages: Sequence[Stage], after_report: Callable[[], None]) -> None:
        """Execute all stages; from the first one again when the input of one turns out to be damaged.

        The first stage prepares the run. `after_report` is called on rank 0 after each report.

        Raises:
            DataError: when files are damaged again and again.
        """
        for _ in range(_ATTEMPTS):
            for position, stage in enumerate(stages):
                if not self.execute(stage, f"stage {position} of {len(stages) - 1}"):
                    break
                if stage.name == "report":
                    on_main(after_report)
            else:
                return
        raise DataError(f"files of {self.context.run_dir} are damaged again and again: check the disk")

    def execute(self, stage: Stage, position: str) -> bool:
        """Execute the stage unless it is done; `position`: for the log.

        Returns False when files that it reads are damaged: the stages that wrote them are then open again.
        """
        decision = on_main(lambda: self._decide(stage))
        if decision in (SKIP, _DAMAGED):
            return decision == SKIP
        if stage.phase >= 0 and not self._data_is_checked:
            on_main(self._check_data)
            self._data_is_checked = True
        logger.info("=== %s: %s%s", stage.key, position, ", resumed" if decision == RESUME else "")
        if stage.collective:
            stage.run()
        else:
            on_main(stage.run)
        on_main(lambda: self._finish(stage))
        self.executed.append(stage.key)
        return True

    def _check_data(self) -> None:
        """Check what all phases train on and are tested on, before the first stage that takes long."""
        plan = read_plan(self.context.run_dir)
        for phase in sorted({0, plan.num_phases - 1}):
            cfg = self.context.phase_cfg(plan, phase)
            check_training_set(cfg, self.context.data.train_dataset(cfg, plan))
            check_test_set(cfg, self.context.data.val_dataset(cfg, plan))

    def repeat(self, stage: Stage) -> Any:
        """Execute a collective stage whether it is done or not, and return its result."""
        on_main(lambda: begin(stage, self.state))
        result = stage.run()
        on_main(lambda: self._finish(stage))
        return result

    def reuse_base(self, stages: list[Stage]) -> None:
        """Reuse the base phase of LST.BASE_RUN unless this run has begun its own."""

        def reuse() -> None:
            if reuse_base_phase(stages, self.state, self.context.run_dir, self.context.cfg.LST.BASE_RUN):
                self._save_settings(stages[0])

        on_main(reuse)

    def _decide(self, stage: Stage) -> str:
        """Decide about a stage; saves the settings of its phase when it will be executed."""
        if self._set_aside_inputs(stage, quick=True):
            return _DAMAGED
        decision = decide(stage, self.state, self.context.run_dir)
        if decision == SKIP:
            return SKIP
        if self._set_aside_inputs(stage, quick=False):
            return _DAMAGED
        if stage.phase >= 0:
            self._save_settings(stage)
        return decision

    def _set_aside_inputs(self, stage: Stage, *, quick: bool) -> bool:
        """Whether an input of `stage` is damaged; it is set aside, and the stage that wrote it open."""
        damages = damaged_inputs(stage, self.state, quick=quick)
        if damages:
            repair(damages, list(self._known.values()), self.state, {})
        return bool(damages)

    def _finish(self, stage: Stage) -> None:
        """Record that a stage is complete; of one that was done again, say whether its files are the same."""
        result = self.state.finish(stage.key, stage.outputs, stage.side)
        if result:
            logger.info("%s was done again and gave %s", stage.key, _RESULTS[result])

    def _save_settings(self, stage: Stage) -> None:
        """Save the derived configuration of the phase of a stage."""
        name, plan = _config_name(stage), read_plan(self.context.run_dir)
        self.state.forget_outputs(name)
        save_config(self.context.phase_cfg(plan, stage.phase), stage.config_file)
        self.state.record_outputs(name, [stage.config_file])


def _config_name(stage: Stage) -> str:
    """Name under which the settings of the phase of a stage are recorded."""
    return f"phase_{stage.phase}/config"


def _leave_to_summary(_: Path, __: Path | None) -> str:
    """Leave a damaged summary file to the next `write_summary`, which follows the last report."""
    return "the summary is written again"
