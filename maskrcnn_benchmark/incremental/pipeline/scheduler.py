"""One command for the whole method: prepare, base, then step after step; stops and starts anywhere."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import save_config
from maskrcnn_benchmark.evaluation.report import EvaluationReport
from maskrcnn_benchmark.incremental.pipeline.actions import Work, load_plan
from maskrcnn_benchmark.incremental.pipeline.graph import phase_stages, prepare_stage
from maskrcnn_benchmark.incremental.pipeline.phase_config import FINAL_WEIGHTS, run_folder
from maskrcnn_benchmark.incremental.pipeline.phase_data import PhaseData
from maskrcnn_benchmark.incremental.pipeline.reuse import adopt_base
from maskrcnn_benchmark.incremental.pipeline.stage import RESUME, SKIP, Stage, begin, decide
from maskrcnn_benchmark.incremental.pipeline.state import RunState
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.reporting.events import write_events
from maskrcnn_benchmark.incremental.reporting.reference import Reference, read_reference
from maskrcnn_benchmark.incremental.reporting.summary import (
    Summary,
    build_summary,
    format_summary,
    stored_summary,
    write_summary,
)
from maskrcnn_benchmark.utils.comm import on_main
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.files import sha256_file
from maskrcnn_benchmark.utils.run_lock import claimed

logger = logging.getLogger(__name__)


def run_lst(cfg: CfgNode) -> Summary:
    """Run every stage that is not done yet and return the summary (see `summary.build_summary`).

    Order: prepare; phase 0: train, report; each step: dump, grow, replay, train, report. LST.PHASES restricts
    the run to some phases. The run folder is LST.RUN_DIR or OUTPUT_DIR; its state.json says what is done.
    Every rank must call this; rank 0 decides and keeps the files.

    Raises:
        UsageError: for bad input, when a change would invalidate a phase that later ones were made from, or
        when another run is at work in the folder.
        KeyboardInterrupt: after Ctrl-C; the same command continues.
    """
    with claimed(run_folder(cfg), below=("phase_*",)):
        return _run(cfg)


def _run(cfg: CfgNode) -> Summary:
    """The stages, in a folder that belongs to this run."""
    runner = _Runner(cfg)
    runner.execute(prepare_stage(runner.work), "first stage")
    plan = load_plan(runner.work.run_dir, cfg.LST.REPORT_SIZES)
    reference = read_reference(cfg.LST.REFERENCE_RUN, plan)
    phases = _selected_phases(cfg, plan, runner.work)
    if cfg.LST.BASE_RUN and 0 in phases:
        runner.adopt_base(phase_stages(runner.work, plan, 0))
    stages = [stage for phase in phases for stage in phase_stages(runner.work, plan, phase)]
    for number, stage in enumerate(stages, start=1):
        runner.execute(stage, f"stage {number} of {len(stages)}")
        if stage.name == "report":
            on_main(lambda: _summarise(plan, runner.work.run_dir, reference))
    summary = build_summary(plan, runner.work.run_dir, reference)
    if runner.executed:
        logger.info("finished: results are in %s", runner.work.run_dir)
    else:
        logger.info("%s is finished already: there is nothing to do", runner.work.run_dir)
    logger.info("\n%s", format_summary(summary, plan))
    return summary


def test_phase(cfg: CfgNode, phase: int | None = None) -> EvaluationReport:
    """Test the final model of a phase (default: the last one trained) and write and log its report.

    Raises:
        ConfigError: when the run has no such phase, or it is not trained yet.
    """
    runner = _Runner(cfg)
    runner.execute(prepare_stage(runner.work), "first stage")
    work, plan = runner.work, load_plan(runner.work.run_dir, cfg.LST.REPORT_SIZES)
    reference = read_reference(cfg.LST.REFERENCE_RUN, plan)
    trained = [p for p in range(plan.num_phases) if (work.folder(p) / FINAL_WEIGHTS).exists()]
    chosen = phase if phase is not None else max(trained, default=0)
    plan.check_phase(chosen)
    if chosen not in trained:
        raise ConfigError(f"phase {chosen} has no {FINAL_WEIGHTS} in {work.folder(chosen)}; train it first")
    stage = phase_stages(work, plan, chosen)[-1]
    result = runner.again(stage)
    on_main(lambda: _summarise(plan, work.run_dir, reference))
    return result


test_phase.__test__ = False  # type: ignore[attr-defined]  # the name is a command, not a test case


def _selected_phases(cfg: CfgNode, plan: PhasePlan, work: Work) -> list[int]:
    """Phases to run, ascending; ConfigError for an unknown one or one without its predecessor's model."""
    chosen = sorted(set(cfg.LST.PHASES)) or list(range(plan.num_phases))
    for phase in chosen:
        plan.check_phase(phase)
        before = work.folder(phase - 1) / FINAL_WEIGHTS
        if phase > 0 and phase - 1 not in chosen and not before.exists():
            raise ConfigError(
                f"LST.PHASES {chosen}: phase {phase} starts from {before}, which does not exist"
            )
    return chosen


def _summarise(plan: PhasePlan, run_dir: Path, reference: Reference | None) -> None:
    """Bring the summary files up to the reports that exist; also those that a killed run did not get to."""
    summary, before = build_summary(plan, run_dir, reference), stored_summary(run_dir)
    if before != summary:
        write_events(summary, before, run_dir)
        write_summary(summary, plan, run_dir)


class _Runner:
    """Executes stages: rank 0 decides from the state file and tells the others."""

    def __init__(self, cfg: CfgNode) -> None:
        run_dir = run_folder(cfg)
        self.executed: list[str] = []
        self._state: RunState | None = None
        on_main(lambda: self._open(run_dir / "state.json"))
        hash_of = self._state.file_hash if self._state is not None else sha256_file
        self.work = Work(cfg, run_dir, PhaseData(cfg), hash_of)

    def _open(self, path: Path) -> None:
        self._state = RunState(path)

    def execute(self, stage: Stage, place: str) -> bool:
        """Do the stage unless it is done; whether anything was done. `place` is its number, for the log."""
        decision = on_main(lambda: self._decide(stage))
        if decision == SKIP:
            return False
        logger.info("=== %s: %s%s", stage.key, place, ", continued" if decision == RESUME else "")
        if stage.collective:
            stage.run()
        else:
            on_main(stage.run)
        on_main(lambda: self._main_state().finish(stage.key))
        self.executed.append(stage.key)
        return True

    def adopt_base(self, stages: list[Stage]) -> None:
        """Take over the base phase of LST.BASE_RUN unless this run has begun its own."""

        def adopt() -> None:
            if adopt_base(stages, self._main_state(), self.work.run_dir, self.work.cfg.LST.BASE_RUN):
                self._save_settings(stages[0])

        on_main(adopt)

    def again(self, stage: Stage) -> Any:
        """Do a collective stage whether it is done or not, and give its result."""
        on_main(lambda: begin(stage, self._main_state()))
        result = stage.run()
        on_main(lambda: self._main_state().finish(stage.key))
        return result

    def _decide(self, stage: Stage) -> str:
        """The decision about a stage; keeps its settings when it will be done."""
        decision = decide(stage, self._main_state(), self.work.run_dir)
        if decision != SKIP and stage.phase >= 0:
            self._save_settings(stage)
        return decision

    def _save_settings(self, stage: Stage) -> None:
        """Keep the derived configuration that a stage of a phase works with."""
        save_config(self.work.phase_cfg(load_plan(self.work.run_dir), stage.phase), stage.config_file)

    def _main_state(self) -> RunState:
        """The state file, which rank 0 alone keeps."""
        assert self._state is not None
        return self._state
