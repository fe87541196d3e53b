"""The stages of a run in order, each with the files it reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.checkpoint.checkpointer import LAST, step_back
from maskrcnn_benchmark.engine.finite_check import NONFINITE_FILE
from maskrcnn_benchmark.engine.writers import METRICS_FILE
from maskrcnn_benchmark.incremental.distillation.store import STORE_FILES
from maskrcnn_benchmark.incremental.pipeline.context import RunContext
from maskrcnn_benchmark.incremental.pipeline.evaluate_phase import report_phase
from maskrcnn_benchmark.incremental.pipeline.phase_config import stage_settings
from maskrcnn_benchmark.incremental.pipeline.prepare import (
    dump_teacher,
    grow_classifier,
    plan_replay,
    prepare_run,
    restore_config,
)
from maskrcnn_benchmark.incremental.pipeline.stage import Stage
from maskrcnn_benchmark.incremental.pipeline.train_phase import (
    restore_training_file,
    set_aside_training,
    train_phase,
)
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.run_folder import (
    CONFIG_FILE,
    GROWN_WEIGHTS,
    PLAN_FILE,
    REPLAY_FILE,
    STORE_FOLDER,
    report_folder,
)
from maskrcnn_benchmark.incremental.reporting.phase_report import REPORT_FILES

Files = dict[str, Path]


def prepare_stage(run: RunContext) -> Stage:
    """First stage: class order and phases."""
    inputs = {"LST.ANN_TRAIN": run.data.train_path}
    if run.cfg.LST.SORTED_IDS:
        inputs["LST.SORTED_IDS"] = Path(run.cfg.LST.SORTED_IDS)
    return Stage(
        phase=-1,
        name="prepare",
        inputs=inputs,
        settings=stage_settings(run.cfg, "prepare"),
        outputs=(run.run_dir / PLAN_FILE,),
        run=lambda: prepare_run(run),
        config_file=run.run_dir / CONFIG_FILE,
        side=(run.run_dir / CONFIG_FILE,),
        restore=lambda path, _: restore_config(run.cfg, path),
    )


def phase_stages(run: RunContext, plan: PhasePlan, phase: int) -> list[Stage]:
    """Stages of one phase: for a step dump (where outputs are stored), grow, replay; then train, report."""
    return _PhaseStages(run, plan, phase).stages()


class _PhaseStages:
    """Builds the stages of one phase."""

    def __init__(self, run: RunContext, plan: PhasePlan, phase: int) -> None:
        self._run, self._plan, self._phase = run, plan, phase
        self._cfg, self._folder = run.phase_cfg(plan, phase), run.folder(phase)
        self._annotations: Files = {"LST.ANN_TRAIN": run.data.train_path}

    def stages(self) -> list[Stage]:
        """All stages; training reads what the preparing ones write."""
        preparing = self._preparing() if self._phase else []
        inputs = dict(self._annotations)
        for stage in preparing:
            inputs |= {str(path.relative_to(self._folder)): path for path in stage.outputs}
        if self._phase == 0 and Path(self._cfg.MODEL.WEIGHT).is_file():
            inputs["MODEL.WEIGHT"] = Path(self._cfg.MODEL.WEIGHT)
        if self._cfg.MODEL.USE_DISTILL and self._cfg.LST.DISTILL.MODE == "online":
            inputs |= self._teacher()
        if self._phase and self._cfg.LST.REPLAY.MODE == "file":
            names = ("FILE_IMAGES", "FILE_CLASSES")
            inputs |= {f"LST.REPLAY.{name}": Path(self._cfg.LST.REPLAY[name]) for name in names}
        final = self._run.final_weights(self._phase)
        reports = [report_folder(self._run.run_dir, self._phase) / name for name in REPORT_FILES]
        tested = {"model": final, "LST.ANN_VAL": self._run.data.val_path}
        return [
            *preparing,
            self._stage(
                "train",
                inputs,
                [final],
                train_phase,
                side=(self._folder / LAST, self._folder / METRICS_FILE),
                restart=self._restart,
                step_back=lambda: step_back(self._folder),
                restore=restore_training_file,
                resumable=self._resumable,
            ),
            self._stage("report", tested, reports, report_phase),
        ]

    def _preparing(self) -> list[Stage]:
        """Stages of a step before it can train."""
        teacher = self._teacher()
        stages = []
        if self._cfg.MODEL.USE_DISTILL and self._cfg.LST.DISTILL.MODE == "file":
            file = self._cfg.LST.DISTILL.FILE
            inputs = teacher | self._annotations | ({"LST.DISTILL.FILE": Path(file)} if file else {})
            outputs = [self._folder / STORE_FOLDER / name for name in STORE_FILES]
            stages.append(self._stage("dump", inputs, outputs, dump_teacher))
        grown, plan = self._folder / GROWN_WEIGHTS, self._folder / REPLAY_FILE
        from_data = self._cfg.LST.GROW.INIT != "normal"
        inputs = teacher | self._annotations if from_data else teacher
        stages.append(self._stage("grow", inputs, [grown], grow_classifier, collective=from_data))
        stages.append(self._stage("replay", self._annotations, [plan], plan_replay, collective=False))
        return stages

    def _teacher(self) -> Files:
        """Final weights of the phase before."""
        return {"teacher": self._run.final_weights(self._phase - 1)}

    def _stage(
        self, name: str, inputs: Files, outputs: Sequence[Path], action: Callable[..., object], **more: Any
    ) -> Stage:
        """Build one stage; all of them depend on the list of classes."""
        return Stage(
            phase=self._phase,
            name=name,
            inputs={"classes": self._run.run_dir / PLAN_FILE, **inputs},
            settings=stage_settings(self._cfg, name),
            outputs=tuple(outputs),
            run=lambda: action(self._run, self._plan, self._phase),
            config_file=self._folder / CONFIG_FILE,
            **{"collective": True, **more},
        )

    def _resumable(self) -> bool:
        """Whether training stopped at a non-finite loss: it resumes with the settings that fix it."""
        return (self._folder / NONFINITE_FILE).exists()

    def _restart(self) -> None:
        """Keep the files of the earlier training when it starts anew."""
        set_aside_training(self._run, self._phase)
