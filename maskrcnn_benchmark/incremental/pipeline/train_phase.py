"""Train one phase, and set the files of an earlier training aside."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from maskrcnn_benchmark.checkpoint.checkpointer import LAST
from maskrcnn_benchmark.data.datasets.images import image_name
from maskrcnn_benchmark.data.types import Batch
from maskrcnn_benchmark.engine.finite_check import NONFINITE_FILE
from maskrcnn_benchmark.engine.launch import rank_device
from maskrcnn_benchmark.engine.train import train
from maskrcnn_benchmark.engine.train_and_test import build_seeded_model
from maskrcnn_benchmark.engine.writers import salvage_metrics
from maskrcnn_benchmark.incremental.distillation.lookup import DistillLookup, OnlineTeacher
from maskrcnn_benchmark.incremental.distillation.store import DistillStore
from maskrcnn_benchmark.incremental.pipeline.context import RunContext
from maskrcnn_benchmark.incremental.pipeline.evaluate_phase import evaluate_phase
from maskrcnn_benchmark.incremental.pipeline.phase_data import base_batches, replay_batches
from maskrcnn_benchmark.incremental.plan.phases import PhasePlan
from maskrcnn_benchmark.incremental.plan.run_folder import (
    FINAL_WEIGHTS,
    PREVIOUS_FOLDER,
    REPLAY_FILE,
    STORE_FOLDER,
)
from maskrcnn_benchmark.incremental.replay.plan import read_replay_plan
from maskrcnn_benchmark.structures.model_input import StoredLogits
from maskrcnn_benchmark.utils.files import write_text

logger = logging.getLogger(__name__)
_TRAINING_FILES = ("last_checkpoint", "model_*.pth", "metrics.jsonl", "tensorboard", NONFINITE_FILE)


def train_phase(run: RunContext, plan: PhasePlan, phase: int) -> None:
    """Train one phase into its folder, resuming where it was stopped; collective over ranks."""
    cfg, folder = run.phase_cfg(plan, phase), run.folder(phase)
    dataset = run.data.train_dataset(cfg, plan)
    teacher = _teacher_outputs(run, plan, phase) if cfg.MODEL.USE_DISTILL else None
    if phase == 0:
        batches = base_batches(cfg, dataset)
    else:
        batches = replay_batches(cfg, dataset, read_replay_plan(folder / REPLAY_FILE))
    train(
        cfg,
        build_seeded_model(cfg),
        batches,
        output_dir=str(folder),
        max_iter=cfg.SOLVER.MAX_ITER,
        evaluate=lambda model, iteration: (
            evaluate_phase(run, cfg, plan, model, f"iteration {iteration}").metrics
        ),
        distill=teacher,
        classes=plan.names(phase),
        extra_meta={"phase": phase, "label_to_category": [0, *plan.seen_ids(phase)]},
        image_name=lambda index: image_name(dataset.get_img_info(index)),
    )


def _teacher_outputs(run: RunContext, plan: PhasePlan, phase: int) -> Callable[[Batch], StoredLogits]:
    """Teacher outputs of a batch: read from the store, or computed by the teacher (LST.DISTILL.MODE)."""
    cfg, num_old = run.phase_cfg(plan, phase), plan.num_old(phase)
    if cfg.LST.DISTILL.MODE == "file":
        return DistillLookup(DistillStore(run.folder(phase) / STORE_FOLDER), num_old)
    teacher = run.load_final_model(plan, phase - 1).to(rank_device(cfg.MODEL.DEVICE))
    return OnlineTeacher(teacher, num_old, cfg.DATALOADER.SIZE_DIVISIBILITY)


def restore_training_file(path: Path, damaged: Path | None) -> str:
    """Write a damaged record of a finished training again, as far as possible; returns what was done.

    `path` is `last_checkpoint` or the metrics file, `damaged` what is left of it.
    """
    if path.name == LAST:
        write_text(path, FINAL_WEIGHTS)
        return "it is written again"
    kept = salvage_metrics(damaged, path) if damaged is not None else 0
    return f"{kept} lines of it can be read and are kept; no weights and no results depend on it"


def set_aside_training(run: RunContext, phase: int) -> None:
    """Move the training files of a phase into its folder `previous`, replacing an older set there.

    They are collected in a temporary folder first, so that a process killed here loses none of them: the next
    call completes the set.
    """
    folder = run.folder(phase)
    target, partial = folder / PREVIOUS_FOLDER, folder / f"{PREVIOUS_FOLDER}.partial"
    files = [path for pattern in _TRAINING_FILES for path in folder.glob(pattern)]
    if not files and not partial.exists():
        return
    partial.mkdir(parents=True, exist_ok=True)
    for path in files:
        os.replace(path, partial / path.name)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    logger.warning("phase %d: training starts again; its earlier files are in %s", phase, target)
