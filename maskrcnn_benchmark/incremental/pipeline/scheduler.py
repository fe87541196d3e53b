"""Run a whole LST training stage by stage: prepare, base, then each step; stops and resumes anywhere."""

from __future__ import annotations

import logging

from yacs.config import CfgNode

from maskrcnn_benchmark.evaluation.report import EvaluationReport
from maskrcnn_benchmark.incremental.pipeline.context import RunContext
from maskrcnn_benchmark.incremental.pipeline.run_stages import phase_stages, prepare_stage
from maskrcnn_benchmark.incremental.pipeline.runner import SUMMARY, StageRunner
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan, read_plan
from maskrcnn_benchmark.incremental.plan.run_folder import FINAL_WEIGHTS, run_folder
from maskrcnn_benchmark.incremental.reporting.reference import Reference, read_reference
from maskrcnn_benchmark.incremental.reporting.summary import (
    SUMMARY_FILES,
    Summary,
    build_summary,
    format_summary,
    stored_summary,
    write_events,
    write_summary,
)
from maskrcnn_benchmark.utils.comm import on_main
from maskrcnn_benchmark.utils.errors import ConfigError
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
    runner = StageRunner(cfg)
    prepare = prepare_stage(runner.context)
    runner.check([prepare])
    runner.execute(prepare, "first stage")
    plan = read_plan(runner.context.run_dir).with_report_sizes(cfg.LST.REPORT_SIZES)
    reference = read_reference(cfg.LST.REFERENCE_RUN, plan)
    of_phase = {phase: phase_stages(runner.context, plan, phase) for phase in range(plan.num_phases)}
    runner.check([stage for stages in of_phase.values() for stage in stages])
    phases = _selected_phases(cfg, plan, runner.context)
    if cfg.LST.BASE_RUN and 0 in phases:
        runner.reuse_base(of_phase[0])
    stages = [prepare, *(stage for phase in phases for stage in of_phase[phase])]
    runner.execute_all(stages, lambda: _summarise(plan, runner, reference))
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
        DataError: when its final model is damaged.
    """
    runner = StageRunner(cfg)
    prepare = prepare_stage(runner.context)
    runner.require_intact(prepare.outputs)
    runner.execute(prepare, "first stage")
    context, plan = runner.context, read_plan(runner.context.run_dir).with_report_sizes(cfg.LST.REPORT_SIZES)
    reference = read_reference(cfg.LST.REFERENCE_RUN, plan)
    trained = [p for p in range(plan.num_phases) if context.final_weights(p).exists()]
    chosen = phase if phase is not None else max(trained, default=0)
    plan.check_phase(chosen)
    if chosen not in trained:
        raise ConfigError(
            f"phase {chosen} has no {FINAL_WEIGHTS} in {context.folder(chosen)}; train it first"
        )
    runner.require_intact([context.final_weights(chosen)])
    report = runner.repeat(phase_stages(context, plan, chosen)[-1])
    on_main(lambda: _summarise(plan, runner, reference))
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


def _summarise(plan: PhasePlan, runner: StageRunner, reference: Reference | None) -> None:
    """Update the summary files to the reports that exist, including those of a killed run."""
    run_dir, state = runner.context.run_dir, runner.state
    summary, before = build_summary(plan, run_dir, reference), stored_summary(run_dir)
    if before != summary:
        state.forget_outputs(SUMMARY)
        write_events(summary, before, run_dir)
        write_summary(summary, plan, run_dir)
    if not state.outputs(SUMMARY):
        state.record_outputs(SUMMARY, [run_dir / name for name in SUMMARY_FILES])
