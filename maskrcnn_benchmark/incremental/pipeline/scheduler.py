"""Run a whole LST training stage by stage: prepare, base, then each step; stops and resumes anywhere."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import save_config
from maskrcnn_benchmark.engine.data_check import check_test_set, check_training_set
from maskrcnn_benchmark.evaluation.report import EvaluationReport
from maskrcnn_benchmark.incremental.pipeline.base_reuse import reuse_base_phase
from maskrcnn_benchmark.incremental.pipeline.context import RunContext
from maskrcnn_benchmark.incremental.pipeline.phase_data import PhaseData
from maskrcnn_benchmark.incremental.pipeline.run_stages import phase_stages, prepare_stage
from maskrcnn_benchmark.incremental.pipeline.run_state import RunState
from maskrcnn_benchmark.incremental.pipeline.stage import RESUME, SKIP, Stage, begin, decide
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan, read_plan
from maskrcnn_benchmark.incremental.plan.run_folder import FINAL_WEIGHTS, STATE_FILE, run_folder
from maskrcnn_benchmark.incremental.reporting.reference import Reference, read_reference
from maskrcnn_benchmark.incremental.reporting.summary import (
    Summary,
    build_summary,
    format_summary,
    stored_summary,
    write_events,
    write_summary,
)
from maskrcnn_benchmark.utils.comm import on_main
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.files import sha256_file
from maskrcnn_benchmark.utils.run_lock import lock_run_folder

logger = logging.getLogger(__name__)


def run_lst(cfg: CfgNode) -> Summary:
    """Run every stage that is not done yet and return the summary (see `summary.build_summary`).

    Order: prepare; phase 0: train, report; each step: dump, grow, replay, train, report. LST.PHASES restricts
    the run to some phases. The run folder is LST.RUN_DIR or OUTPUT_DIR; its state.json says what is done.
    Collective over ranks; rank 0 decides and writes the files.

    Raises:
        UsageError: for bad input, when a change would invalidate a phase that later ones depend on, or when
        another process uses the folder.
        KeyboardInterrupt: after Ctrl-C; the same command resumes.
    """
    with lock_run_folder(run_folder(cfg), below=("phase_*",)):
        return _run(cfg)


def _run(cfg: CfgNode) -> Summary:
    """Execute the stages in a folder that this process has locked."""
    runner = _Runner(cfg)
    runner.execute(prepare_stage(runner.context), "first stage")
    plan = read_plan(runner.context.run_dir).with_report_sizes(cfg.LST.REPORT_SIZES)
    reference = read_reference(cfg.LST.REFERENCE_RUN, plan)
    phases = _selected_phases(cfg, plan, runner.context)
    if cfg.LST.BASE_RUN and 0 in phases:
        runner.reuse_base(phase_stages(runner.context, plan, 0))
    stages = [stage for phase in phases for stage in phase_stages(runner.context, plan, phase)]
    for position, stage in enumerate(stages, start=1):
        runner.execute(stage, f"stage {position} of {len(stages)}")
        if stage.name == "report":
            on_main(lambda: _summarise(plan, runner.context.run_dir, reference))
    summary = build_summary(plan, runner.context.run_dir, reference)
    if runner.executed:
        logger.info("finished: results are in %s", runner.context.run_dir)
    else:
        logger.info("%s is finished already: there is nothing to do", runner.context.run_dir)
    logger.info("\n%s", format_summary(summary, plan))
    return summary


def test_phase(cfg: CfgNode, phase: int | None = None) -> EvaluationReport:
    """Test the final model of a phase (default: the last trained one), write and log its report.

    Raises:
        ConfigError: when the run has no such phase, or it is not trained yet.
    """
    runner = _Runner(cfg)
    runner.execute(prepare_stage(runner.context), "first stage")
    context, plan = runner.context, read_plan(runner.context.run_dir).with_report_sizes(cfg.LST.REPORT_SIZES)
    reference = read_reference(cfg.LST.REFERENCE_RUN, plan)
    trained = [p for p in range(plan.num_phases) if context.final_weights(p).exists()]
    chosen = phase if phase is not None else max(trained, default=0)
    plan.check_phase(chosen)
    if chosen not in trained:
        raise ConfigError(
            f"phase {chosen} has no {FINAL_WEIGHTS} in {context.folder(chosen)}; train it first"
        )
    stage = phase_stages(context, plan, chosen)[-1]
    report = runner.repeat(stage)
    on_main(lambda: _summarise(plan, context.run_dir, reference))
    return report


test_phase.__test__ = False  # type: ignore[attr-defined]  # the name is a command, not a test case


def _selected_phases(cfg: CfgNode, plan: PhasePlan, context: RunContext) -> list[int]:
    """Phases to run, ascending; ConfigError for an unknown one or one without its predecessor's model."""
    chosen = sorted(set(cfg.LST.PHASES)) or list(range(plan.num_phases))
    for phase in chosen:
        plan.check_phase(phase)
        before = context.final_weights(phase - 1)
        if phase > 0 and phase - 1 not in chosen and not before.exists():
            raise ConfigError(
                f"LST.PHASES {chosen}: phase {phase} starts from {before}, which does not exist; train phase "
                f"{phase - 1} first"
            )
    return chosen


def _summarise(plan: PhasePlan, run_dir: Path, reference: Reference | None) -> None:
    """Update the summary files to the reports that exist, including those of a killed run."""
    summary, before = build_summary(plan, run_dir, reference), stored_summary(run_dir)
    if before != summary:
        write_events(summary, before, run_dir)
        write_summary(summary, plan, run_dir)


class _Runner:
    """Executes stages: rank 0 decides from the state file and broadcasts the decision."""

    def __init__(self, cfg: CfgNode) -> None:
        run_dir = run_folder(cfg)
        self.executed: list[str] = []
        self._data_is_checked = False
        self._state: RunState | None = None
        on_main(lambda: self._open(run_dir / STATE_FILE))
        hash_of = self._state.file_hash if self._state is not None else sha256_file
        self.context = RunContext(cfg, run_dir, PhaseData(cfg), hash_of)

    def _open(self, path: Path) -> None:
        self._state = RunState(path)

    def execute(self, stage: Stage, position: str) -> bool:
        """Execute the stage unless it is done; returns whether it was executed. `position`: for the log."""
        decision = on_main(lambda: self._decide(stage))
        if decision == SKIP:
            return False
        if stage.phase >= 0 and not self._data_is_checked:
            on_main(self._check_data)
            self._data_is_checked = True
        logger.info("=== %s: %s%s", stage.key, position, ", resumed" if decision == RESUME else "")
        if stage.collective:
            stage.run()
        else:
            on_main(stage.run)
        on_main(lambda: self._main_state().finish(stage.key))
        self.executed.append(stage.key)
        return True

    def _check_data(self) -> None:
        """Check what all phases train on and are tested on, before the first stage that takes long."""
        plan = read_plan(self.context.run_dir)
        for phase in sorted({0, plan.num_phases - 1}):
            cfg = self.context.phase_cfg(plan, phase)
            check_training_set(cfg, self.context.data.train_dataset(cfg, plan))
            check_test_set(cfg, self.context.data.val_dataset(cfg, plan))

    def reuse_base(self, stages: list[Stage]) -> None:
        """Reuse the base phase of LST.BASE_RUN unless this run has begun its own."""

        def reuse() -> None:
            if reuse_base_phase(
                stages, self._main_state(), self.context.run_dir, self.context.cfg.LST.BASE_RUN
            ):
                self._save_settings(stages[0])

        on_main(reuse)

    def repeat(self, stage: Stage) -> Any:
        """Execute a collective stage whether it is done or not, and return its result."""
        on_main(lambda: begin(stage, self._main_state()))
        result = stage.run()
        on_main(lambda: self._main_state().finish(stage.key))
        return result

    def _decide(self, stage: Stage) -> str:
        """Decide about a stage; saves its settings when it will be executed."""
        decision = decide(stage, self._main_state(), self.context.run_dir)
        if decision != SKIP and stage.phase >= 0:
            self._save_settings(stage)
        return decision

    def _save_settings(self, stage: Stage) -> None:
        """Save the derived configuration of the phase of a stage."""
        save_config(self.context.phase_cfg(read_plan(self.context.run_dir), stage.phase), stage.config_file)

    def _main_state(self) -> RunState:
        """Records of the run, which only rank 0 has."""
        assert self._state is not None
        return self._state
