"""Check whether a training step fits into the memory of this computer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from maskrcnn_benchmark.data.samplers import aspect_groups
from maskrcnn_benchmark.data.transforms.sizes import SizeRule
from maskrcnn_benchmark.doctor.checkup import TRAIN, Checkup, Job, size_keys
from maskrcnn_benchmark.doctor.finding import Finding, NotChecked, error, note, ok, size_text, warning
from maskrcnn_benchmark.doctor.machine import free_gpu_memory, free_memory
from maskrcnn_benchmark.doctor.memory_profile import matching_bytes, step_peak
from maskrcnn_benchmark.doctor.models import job_model, model_size
from maskrcnn_benchmark.utils.env import resolve_device
from maskrcnn_benchmark.utils.errors import DeviceError

PROCESS = {"cpu": 500 << 20, "cuda": 700 << 20}
"""Bytes that a process holds with an empty model: the libraries on the CPU, the context on a GPU (about)."""

WORKER = 120 << 20
"""Bytes of a data worker beside its copy of the annotations (about)."""

MARGIN = 1.2
"""Factor for work space and fragmentation; measured steps lay between 0.93 and 1.27 of the bare figure."""

FULL = 0.85
"""Fraction of the free memory from which on there is a warning."""


@dataclass(frozen=True)
class BatchShape:
    """Largest padded batch of one process: images, height and width; `measured` from the annotations."""

    images: int
    height: int
    width: int
    measured: bool


def check_memory(checkup: Checkup) -> Iterator[Finding]:
    """Yield findings on the memory of a training; of an LST run base, first step and last step."""
    try:
        device = resolve_device(checkup.cfg.MODEL.DEVICE)
    except DeviceError as problem:
        yield error(
            str(problem), "MODEL.DEVICE", advice="set MODEL.DEVICE auto or cpu, or use another computer"
        )
        device = torch.device("cpu")
    if device.type == "cpu" and checkup.cfg.MODEL.DEVICE == "auto":
        yield note("there is no GPU: the run would use the CPU", "MODEL.DEVICE")
    if checkup.quick:
        yield note("memory is not estimated with --quick", *size_keys(checkup.cfg))
        return
    jobs = checkup.jobs
    for job in dict.fromkeys((0, 1, len(jobs) - 1)) if len(jobs) > 1 else (0,):
        yield from _estimate(checkup, jobs[job], device)


def batch_shape(checkup: Checkup, job: Job) -> BatchShape:
    """Return the largest batch that training can meet.

    Every image is taken at the largest of its training sizes. Grouping by aspect ratio keeps landscape and
    portrait apart, except in the steps of an LST run, whose images are sampled by class.
    """
    cfg = job.cfg
    rule, multiple = SizeRule.from_cfg(cfg, train=True), cfg.DATALOADER.SIZE_DIVISIBILITY
    images = -(-cfg.SOLVER.IMS_PER_BATCH // checkup.processes)
    try:
        records = [r for _, annotations in checkup.annotations(TRAIN) for r in annotations.images]
        sizes = {(r["width"], r["height"]) for r in records}
    except NotChecked:
        sizes = set()
    measured = bool(sizes)
    known = sorted(sizes) or [(rule.max_size, max(rule.short_sides))]
    known = [rule.largest(width, height) for width, height in known]
    grouped = cfg.DATALOADER.ASPECT_RATIO_GROUPING and job.phase <= 0
    groups = aspect_groups(h / w for w, h in known) if grouped else [0] * len(known)
    shapes = []
    for group in set(groups):
        members = [size for size, of in zip(known, groups, strict=True) if of == group]
        shapes.append((max(h for _, h in members), max(w for w, _ in members)))
    height, width = (_padded(side, multiple) for side in max(shapes, key=lambda s: s[0] * s[1]))
    return BatchShape(images, height, width, measured)


def _padded(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple if multiple > 1 else side


def _max_objects(checkup: Checkup) -> int:
    """Return the maximum number of objects of a training image; 20 where annotations are not read."""
    try:
        files = [annotations for _, annotations in checkup.annotations(TRAIN)]
    except NotChecked:
        return 20
    return max((len(file.anns_by_image.rows(i)) for file in files for i in file.anns_by_image), default=0)


def _estimate(checkup: Checkup, job: Job, device: torch.device) -> Iterator[Finding]:
    """Compare the memory of one training with what is free."""
    shape, model = batch_shape(checkup, job), model_size(job_model(job))
    step = step_peak(job.cfg, images=shape.images, height=shape.height, width=shape.width)
    step += matching_bytes(job.cfg, _max_objects(checkup), shape.height, shape.width)
    parts = {
        "program": PROCESS[device.type],
        "weights": model.weights,
        "gradients": model.gradients,
        "optimizer": model.optimizer(job.cfg),
        "activations": round(MARGIN * step),
    }
    per_process = sum(parts.values())
    guess = "" if shape.measured else ", a guess without annotations"
    details = ", ".join(f"{name} {size_text(size)}" for name, size in parts.items())
    text = (
        f"{job.name}: about {size_text(per_process)} per process for {shape.images} images of "
        f"{shape.width} x {shape.height}{guess} ({details})"
    )
    data = _data_bytes(checkup, job)
    if device.type == "cuda":
        yield _compare(text, per_process, free_gpu_memory(device), "of the GPU", job)
        text, needed = f"{job.name}: data in main memory", checkup.processes * data
    else:
        needed = checkup.processes * (per_process + data)
    if needed != per_process:
        text += (
            f"; {size_text(needed)} for processes ({checkup.processes}), their data workers "
            f"({job.cfg.DATALOADER.NUM_WORKERS}) and annotations ({size_text(checkup.annotation_bytes)})"
        )
    yield _compare(text, needed, free_memory(), "of main memory", job)


def _data_bytes(checkup: Checkup, job: Job) -> int:
    """Return the main memory of a process' annotations and workers, which in the end copy what they touch."""
    workers = job.cfg.DATALOADER.NUM_WORKERS
    return checkup.annotation_bytes * (1 + workers) + workers * WORKER


def _compare(text: str, needed: int, free: int | None, where: str, job: Job) -> Finding:
    """Return the finding for a need and what is free."""
    if free is None:
        return note(f"{text}; how much {where} is free is not known", *size_keys(job.cfg))
    text = f"{text}; {size_text(free)} {where} are free"
    solver, images = job.cfg.SOLVER, job.solver_key("IMS_PER_BATCH")
    advice = "use smaller images, fewer data workers, or a larger machine"
    if solver.IMS_PER_BATCH > 1:
        same = f"{job.solver_key('ACCUMULATION_STEPS')} {2 * solver.ACCUMULATION_STEPS}"
        advice = f"set {images} {solver.IMS_PER_BATCH // 2} {same} (the same images per update); or {advice}"
    keys = (images, *size_keys(job.cfg), "DATALOADER.NUM_WORKERS")
    if needed > free:
        return error(text, *keys, advice=advice)
    if needed > FULL * free:
        return warning(text, *keys, advice=advice)
    return ok(text, *keys)
