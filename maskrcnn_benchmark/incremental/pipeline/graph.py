"""The stages of a run in order, each with the files it reads and writes (lst spec 12.2, 12.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from maskrcnn_benchmark.engine.nonfinite import NONFINITE_FILE
from maskrcnn_benchmark.incremental.distillation.store import STORE_FILES
from maskrcnn_benchmark.incremental.pipeline import actions as tasks
from maskrcnn_benchmark.incremental.pipeline.actions import Work
from maskrcnn_benchmark.incremental.pipeline.phase_config import FINAL_WEIGHTS, GROWN_WEIGHTS, stage_settings
from maskrcnn_benchmark.incremental.pipeline.stage import Stage
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.reporting.phase_report import REPORT_FILES

Files = dict[str, Path]


def prepare_stage(work: Work) -> Stage:
    """The first stage: class order and phases."""
    inputs = {"LST.ANN_TRAIN": work.data.train_path}
    if work.cfg.LST.SORTED_IDS:
        inputs["LST.SORTED_IDS"] = Path(work.cfg.LST.SORTED_IDS)
    return Stage(
        phase=-1,
        name="prepare",
        inputs=inputs,
        settings=stage_settings(work.cfg, "prepare"),
        outputs=(work.run_dir / tasks.PLAN_FILE,),
        run=lambda: tasks.prepare(work),
        config_file=work.run_dir / "config.yml",
    )


def phase_stages(work: Work, plan: PhasePlan, phase: int) -> list[Stage]:
    """The stages of one phase: for a step dump (where outputs are stored), grow, replay; train, report."""
    return _PhaseStages(work, plan, phase).stages()


class _PhaseStages:
    """Builds the stages of one phase."""

    def __init__(self, work: Work, plan: PhasePlan, phase: int) -> None:
        self._work, self._plan, self._phase = work, plan, phase
        self._cfg, self._folder = work.phase_cfg(plan, phase), work.folder(phase)
        self._annotations: Files = {"LST.ANN_TRAIN": work.data.train_path}

    def stages(self) -> list[Stage]:
        """All of them; training reads what the preparing ones write."""
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
        final = self._folder / FINAL_WEIGHTS
        reports = [self._folder / tasks.REPORT_FOLDER / name for name in REPORT_FILES]
        tested = {"model": final, "LST.ANN_VAL": self._work.data.val_path}
        return [
            *preparing,
            self._stage(
                "train", inputs, [final], tasks.train_phase, restart=self._restart, goes_on=self._goes_on
            ),
            self._stage("report", tested, reports, tasks.report_phase),
        ]

    def _preparing(self) -> list[Stage]:
        """What a step needs before it can train."""
        teacher = self._teacher()
        stages = []
        if self._cfg.MODEL.USE_DISTILL and self._cfg.LST.DISTILL.MODE == "file":
            file = self._cfg.LST.DISTILL.FILE
            inputs = teacher | self._annotations | ({"LST.DISTILL.FILE": Path(file)} if file else {})
            outputs = [self._folder / tasks.DISTILL_FOLDER / name for name in STORE_FILES]
            stages.append(self._stage("dump", inputs, outputs, tasks.dump))
        grown, plan = self._folder / GROWN_WEIGHTS, self._folder / tasks.REPLAY_FILE
        from_data = self._cfg.LST.GROW.INIT != "normal"
        read = teacher | self._annotations if from_data else teacher
        stages.append(self._stage("grow", read, [grown], tasks.grow, collective=from_data))
        stages.append(self._stage("replay", self._annotations, [plan], tasks.replay, collective=False))
        return stages

    def _teacher(self) -> Files:
        """The model of the phase before."""
        return {"teacher": self._work.folder(self._phase - 1) / FINAL_WEIGHTS}

    def _stage(
        self, name: str, inputs: Files, outputs: Sequence[Path], run: Callable[..., object], **more: Any
    ) -> Stage:
        """One stage; every one depends on the list of classes."""
        return Stage(
            phase=self._phase,
            name=name,
            inputs={"classes": self._work.run_dir / tasks.PLAN_FILE, **inputs},
            settings=stage_settings(self._cfg, name),
            outputs=tuple(outputs),
            run=lambda: run(self._work, self._plan, self._phase),
            config_file=self._folder / "config.yml",
            **{"collective": True, **more},
        )

    def _goes_on(self) -> bool:
        """After a loss that was not finite, other settings are the remedy and training goes on with them."""
        return (self._folder / NONFINITE_FILE).exists()

    def _restart(self) -> None:
        """Training anew keeps the earlier files in a folder of their own."""
        tasks.set_aside(self._work, self._phase)
