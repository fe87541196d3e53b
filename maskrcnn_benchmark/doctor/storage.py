"""Check that the run can write its folder, and that the disk holds what it will write."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from maskrcnn_benchmark.checkpoint.checkpointer import last_checkpoint
from maskrcnn_benchmark.config.keys import get_value
from maskrcnn_benchmark.config.models import model_family, predicts_masks
from maskrcnn_benchmark.doctor.checkup import TEST, Checkup, Job
from maskrcnn_benchmark.doctor.finding import Finding, NotChecked, error, note, ok, size_text, warning
from maskrcnn_benchmark.doctor.models import job_model, model_size
from maskrcnn_benchmark.utils.errors import UsageError

BOX_RECORD, MASK_RECORD = 130, 330
"""Bytes of a detection in a result file, without and with an encoded mask (about)."""

_ELEMENT = {"float32": 4, "float16": 2}


def check_storage(checkup: Checkup) -> Iterator[Finding]:
    """Yield findings on OUTPUT_DIR."""
    folder = checkup.run_dir
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    problem = _write_problem(existing)
    if problem:
        yield error(
            f"{folder} cannot be written: {problem}",
            "OUTPUT_DIR",
            advice="name another folder or allow writing",
        )
        return
    if checkup.cfg.OUTPUT_DIR in (".", ""):
        yield note(
            "the run writes into the folder that it is started from",
            "OUTPUT_DIR",
            advice="name a folder of its own, such as OUTPUT_DIR runs/first",
        )
    yield from _earlier(checkup, folder)
    yield from _space(checkup, existing)


def _write_problem(folder: Path) -> str:
    """Return why nothing can be written into an existing folder; "" when it can."""
    if not folder.is_dir():
        return f"{folder} is a file"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as problem:
        return f"{folder}: {problem.strerror}"


def _earlier(checkup: Checkup, folder: Path) -> Iterator[Finding]:
    """Check for a checkpoint in the folder, which wins over MODEL.WEIGHT."""
    if checkup.lst:
        return  # class lists of an earlier LST run are compared in the section on classes
    try:
        last = last_checkpoint(folder)
    except UsageError as problem:
        yield error(str(problem), "OUTPUT_DIR", advice="see the message")
        return
    if last is not None:
        yield note(
            f"{folder} holds the checkpoint {last.name}: training resumes from it and does not read "
            "MODEL.WEIGHT",
            "OUTPUT_DIR",
            "MODEL.WEIGHT",
            advice="to begin anew, name another OUTPUT_DIR",
        )


def _space(checkup: Checkup, existing: Path) -> Iterator[Finding]:
    """Compare the free space with checkpoints, teacher outputs and result files."""
    written = 0  # the file that is being written while the older ones are still there
    parts = {"checkpoints": 0.0, "stored teacher outputs": 0.0, "results": 0.0}
    for job in checkup.jobs:
        one, kept = checkpoint_bytes(job)
        parts["checkpoints"] += kept
        written = max(written, one)
        if job.cfg.MODEL.USE_DISTILL and job.phase > 0:
            parts["stored teacher outputs"] += distill_bytes(checkup, job)
    parts["checkpoints"] += written
    parts["results"] = result_bytes(checkup)
    total, free = sum(parts.values()), shutil.disk_usage(existing).free
    details = ", ".join(f"{name} {size_text(size)}" for name, size in parts.items() if size)
    text = f"the run writes about {size_text(total)} ({details}); {size_text(free)} are free"
    if total > free:
        yield error(
            text, "OUTPUT_DIR", advice="free space, name another disk, or lower SOLVER.KEEP_CHECKPOINTS"
        )
    elif total > 0.8 * free:
        yield warning(text, "OUTPUT_DIR", advice="free some space: a full disk stops the run")
    else:
        yield ok(text, "OUTPUT_DIR", "SOLVER.KEEP_CHECKPOINTS")
    if any(job.cfg.SOLVER.KEEP_CHECKPOINTS == 0 for job in checkup.jobs):
        yield note("all periodic checkpoints are kept", "SOLVER.KEEP_CHECKPOINTS")


def checkpoint_bytes(job: Job) -> tuple[int, int]:
    """Return the bytes of one checkpoint of a training, and of all that it keeps."""
    solver, size = job.cfg.SOLVER, model_size(job_model(job))
    one = size.weights + size.optimizer(job.cfg)
    periodic = solver.MAX_ITER // solver.CHECKPOINT_PERIOD
    kept = periodic if solver.KEEP_CHECKPOINTS == 0 else min(periodic, solver.KEEP_CHECKPOINTS)
    start = size.weights if job.phase > 0 else 0
    return one, one * (kept + 1) + start


def distill_bytes(checkup: Checkup, job: Job) -> float:
    """Return the bytes of the teacher's stored cosines of a step."""
    plan, options = checkup.plan, job.cfg.LST.DISTILL
    new = plan.classes[plan.num_old(job.phase) : plan.num_seen(job.phase)]
    boxes = sum(c.train_instances for c in new)
    return len(options.FLIPS) * boxes * (plan.num_old(job.phase) + 1) * float(_ELEMENT[options.DTYPE])


def result_bytes(checkup: Checkup) -> float:
    """Return the bytes of the detections that are written, if every image gets as many as allowed."""
    try:
        images = sum(len(annotations.images) for _, annotations in checkup.annotations(TEST))
    except NotChecked:
        return 0.0
    total = 0.0
    for job in checkup.jobs:
        each = MASK_RECORD if predicts_masks(job.cfg) else BOX_RECORD
        period = 0 if checkup.lst else job.cfg.SOLVER.TEST_PERIOD
        tests = 1 + (job.cfg.SOLVER.MAX_ITER // period if period else 0)
        limit = get_value(job.cfg, model_family(job.cfg).detections_key)
        total += tests * images * max(limit, 0) * each
    return total
