"""Damaged files of a run folder: what resuming, training and reporting make of them.

The folder is made by the stages of the scheduler; only training, teacher outputs and reports are replaced by
small files. Resuming decides about every stage as a run does; a stage that is redone gets its first files.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kinds_records import demo_annotations
from mutations import flip_bits, mutate_bytes, mutate_json, mutate_text
from runner import SilentDifference

from maskrcnn_benchmark.checkpoint.io import save_atomic
from maskrcnn_benchmark.config.load import clone_with, load_config
from maskrcnn_benchmark.engine.writers import METRICS_FILE, read_metrics
from maskrcnn_benchmark.evaluation.build import build_evaluator
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.incremental.comparison.runs import format_comparison, read_run
from maskrcnn_benchmark.incremental.distillation.json_files import new_box_ids
from maskrcnn_benchmark.incremental.distillation.store import (
    DistillHeader,
    DistillStore,
    ImageCosines,
    write_store,
)
from maskrcnn_benchmark.incremental.pipeline.run_stages import phase_stages, prepare_stage
from maskrcnn_benchmark.incremental.pipeline.runner import StageRunner
from maskrcnn_benchmark.incremental.pipeline.scheduler import _summarise
from maskrcnn_benchmark.incremental.pipeline.stage import Stage
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan, read_plan
from maskrcnn_benchmark.incremental.plan.run_folder import REPLAY_FILE, STORE_FOLDER
from maskrcnn_benchmark.incremental.replay.index_files import replay_sampler
from maskrcnn_benchmark.incremental.replay.plan import read_replay_plan
from maskrcnn_benchmark.incremental.reporting.class_history import format_losses, read_class_history
from maskrcnn_benchmark.incremental.reporting.phase_report import (
    phase_confusion,
    report_groups,
    write_phase_report,
)
from maskrcnn_benchmark.incremental.reporting.summary import format_summary, stored_summary
from maskrcnn_benchmark.utils.files import append_jsonl

ROOT = Path(__file__).resolve().parents[2]
Act = Callable[[Stage], None]


def run_stages(cfg: Any, act: Act) -> list[str]:
    """Go through the stages as the scheduler does, with `act` for their actions; return those executed."""
    runner = StageRunner(cfg)
    context = runner.context

    def acting(stage: Stage) -> Stage:
        return replace(stage, run=lambda: act(stage))

    prepare = acting(prepare_stage(context))
    runner.check([prepare])
    runner.execute(prepare, "stage")
    plan = read_plan(context.run_dir).with_report_sizes(cfg.LST.REPORT_SIZES)
    phases = range(plan.num_phases)
    stages = [acting(stage) for phase in phases for stage in phase_stages(context, plan, phase)]
    runner.check(stages)
    runner.execute_all([prepare, *stages], lambda: _summarise(plan, runner, None))
    return runner.executed


class _FirstTime:
    """Actions of the stages of a new run: real where they are quick, else small files of their form."""

    def __init__(self, cfg: Any) -> None:
        self._runner = StageRunner(cfg)

    def __call__(self, stage: Stage) -> None:
        if stage.name in ("prepare", "replay"):
            stage.run()
            return
        context = self._runner.context
        plan, phase = read_plan(context.run_dir), stage.phase
        cfg = context.phase_cfg(plan, phase)
        if stage.name == "dump":
            self._dump(cfg, plan, phase)
        elif stage.name == "report":
            self._report(cfg, plan, phase)
        else:
            tensors = {"model": {"w": torch.full((3, 5), float(phase))}, "classes": plan.names(phase)}
            save_atomic(tensors, stage.outputs[0])
            for iteration in (1, 2):
                record = {"kind": "train", "iteration": iteration, "loss": 1.0, "lr": 0.1}
                append_jsonl(context.folder(phase) / METRICS_FILE, record)

    def _dump(self, cfg: Any, plan: PhasePlan, phase: int) -> None:
        context, old = self._runner.context, plan.num_old(phase)
        boxes = new_box_ids(context.data.train.outline, plan.seen_ids(phase), old)
        flips = tuple(cfg.LST.DISTILL.FLIPS)
        header = DistillHeader(phase, old, plan.classes_hash(phase - 1), "x", (64, 64), flips, "float32")
        rng = np.random.default_rng(0)
        images = [
            ImageCosines(image, flip, np.array(ids, np.int64), rng.random((len(ids), old + 1)))
            for image, ids in boxes.items()
            for flip in flips
        ]
        write_store(context.folder(phase) / STORE_FOLDER, header, images)

    def _report(self, cfg: Any, plan: PhasePlan, phase: int) -> None:
        context = self._runner.context
        dataset = context.data.val_dataset(cfg, plan)
        evaluator: Any = build_evaluator(
            cfg,
            dataset.annotations.raw,
            dataset.label_to_category,
            kind=context.data.val.kind,
            groups=report_groups(plan, phase),
        )
        report = evaluator.evaluate_detections(Detections.empty(with_masks=cfg.MODEL.MASK_ON))
        confusion = phase_confusion(dataset.annotations.raw, report, plan, phase)
        folder = context.folder(phase) / "report"
        write_phase_report(report, plan, phase, folder, confusion=confusion, details={"checkpoint": "x"})


class RunFiles:
    """Every file of a run folder, one damaged at a time."""

    name = "run_files"

    def prepare(self, folder: Path) -> None:
        """Make a run of two phases."""
        demo_annotations(folder)
        data = folder / "demo"
        values = {
            "LST.ANN_TRAIN": data / "train.json",
            "LST.ANN_VAL": data / "val.json",
            "LST.IMG_TRAIN": data / "images" / "train",
            "LST.IMG_VAL": data / "images" / "val",
            "LST.BASE_SIZE": 3,
            "LST.STEP_SIZE": 3,
            "OUTPUT_DIR": folder / "run",
            "MODEL.DEVICE": "cpu",
            "MODEL.WEIGHT": "",
        }
        pairs = [str(word) for pair in values.items() for word in pair]
        self._cfg = load_config(ROOT / "configs" / "lst" / "demo.yaml", pairs)
        self._first = folder / "run"
        run_stages(self._cfg, _FirstTime(self._cfg))
        assert run_stages(self._cfg, _FirstTime(self._cfg)) == []
        self._files = sorted(
            path.relative_to(self._first)
            for path in self._first.rglob("*")
            if path.is_file() and path.suffix not in (".png", ".txt") and "tensorboard" not in path.parts
        )
        self._outputs = [
            path
            for path in self._files
            if path.name not in ("state.json", "state.backup.json", "config.yml", METRICS_FILE)
        ]
        self._outputs = [path for path in self._outputs if not path.name.startswith("summary")]

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        """Damage one file; then resume, read what training reads, or report."""
        run = folder / "run"
        shutil.copytree(self._first, run)
        name = rng.choice(self._files)
        _damage(rng, run / name)
        mode = rng.choice(["resume", "resume", "resume", "read", "report"])
        if mode == "resume":
            return lambda: self._resume(run, name)
        return (lambda: _read(run)) if mode == "read" else (lambda: _report_on(run))

    def _resume(self, run: Path, damaged: Path) -> None:
        def copy_back(stage: Stage) -> None:
            for path in stage.outputs:
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                path.unlink(missing_ok=True)
                shutil.copyfile(self._first / path.relative_to(run), path)

        run_stages(clone_with(self._cfg, ["OUTPUT_DIR", str(run)]), copy_back)
        for name in self._outputs:
            path = run / name
            if not path.is_file() or path.read_bytes() != (self._first / name).read_bytes():
                raise SilentDifference(f"{damaged.name} was damaged, and the run has another {name.name}")


def _damage(rng: random.Random, path: Path) -> None:
    """Change a file; half of those with flipped bits keep their times, as after a fault of the disk."""
    data, status = path.read_bytes(), path.stat()
    kind = rng.randrange(12)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.unlink()
        path.mkdir()
    elif kind == 2:
        path.unlink()
        path.symlink_to(rng.choice(["gone", path.name, "/dev/null", "."]))
    elif kind <= 6 and data:
        path.write_bytes(flip_bits(rng, data))
        if rng.random() < 0.5:
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif kind <= 9 and path.suffix == ".json":
        text = mutate_json(rng, json.loads(data))
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    elif kind == 10:
        path.write_bytes(mutate_text(rng, data.decode("latin1")))
    else:
        path.write_bytes(mutate_bytes(rng, data))


def _read(run: Path) -> None:
    """Read the files of a step as training does."""
    plan = read_plan(run)
    folder = run / "phase_1"
    replay = read_replay_plan(folder / REPLAY_FILE)
    sampler = replay_sampler(replay, 0, images_per_rank=2, num_iters=3)
    list(sampler)
    store = DistillStore(folder / STORE_FOLDER)
    for image in store.image_ids.tolist():
        for flip in store.header.flips:
            store.read(image, flip).cosines.sum()
    plan.names(1)
    read_metrics(folder / METRICS_FILE)
    load_config(folder / "config.yml")


def _report_on(run: Path) -> None:
    """What tools/lst_report.py reads and prints."""
    stored_summary(run)
    result = read_run(run)
    format_summary(result.summary, result.plan)
    for task in ("bbox", "segm"):
        format_losses(read_class_history(run, result.plan, task))
    format_comparison([result])
