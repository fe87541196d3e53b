"""Check batches: processes, data workers, shared memory, grouping by aspect ratio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch

from maskrcnn_benchmark.data.samplers import aspect_groups
from maskrcnn_benchmark.doctor.checkup import Checkup, Job
from maskrcnn_benchmark.doctor.finding import Finding, NotChecked, error, note, ok, size_text, warning
from maskrcnn_benchmark.doctor.machine import free_shared_memory, processors
from maskrcnn_benchmark.doctor.memory import BatchShape, batch_shape

PREFETCHED = 2
"""Batches that a worker prepares ahead (torch's DataLoader)."""


def check_loading(checkup: Checkup) -> Iterator[Finding]:
    """Yield findings on DATALOADER and IMS_PER_BATCH."""
    jobs = checkup.jobs
    for job in jobs:
        yield from _division(checkup, job)
    count = torch.cuda.device_count()
    if count > 1 and checkup.processes == 1:
        yield note(
            f"{count} GPUs are there; the figures here are for one process",
            "SOLVER.IMS_PER_BATCH",
            advice=f"start torchrun --nproc_per_node {count}, and the doctor with --processes {count}",
        )
    yield from _workers(checkup, jobs[0])
    yield from _grouping(checkup, jobs[0])


def _division(checkup: Checkup, job: Job) -> Iterator[Finding]:
    """Check that batches divide evenly among processes; test batches hold at least one image each."""
    total, world, key = job.cfg.SOLVER.IMS_PER_BATCH, checkup.processes, job.solver_key("IMS_PER_BATCH")
    name = f"{job.name}: " if job.phase >= 0 else ""
    if total % world:
        below = max(world, total // world * world)
        yield error(
            f"{name}{total} images per batch cannot be divided among {world} processes",
            key,
            advice=f"set {key} {below}, or start another number of processes",
        )
    elif world > 1 and job.phase <= 0:
        yield ok(f"{name}{total // world} images per batch and process", key)
    if job.phase <= 0 and world > job.cfg.TEST.IMS_PER_BATCH:
        yield note(
            f"TEST.IMS_PER_BATCH {job.cfg.TEST.IMS_PER_BATCH} is less than {world} processes: each tests one "
            "image at a time",
            "TEST.IMS_PER_BATCH",
        )


def _workers(checkup: Checkup, job: Job) -> Iterator[Finding]:
    """Compare workers with processors and shared memory."""
    workers, cores = job.cfg.DATALOADER.NUM_WORKERS * checkup.processes, processors()
    key = "DATALOADER.NUM_WORKERS"
    if workers > cores:
        yield warning(
            f"{workers} data workers on {cores} processor cores hinder each other",
            key,
            advice=f"set {key} {max(0, cores // checkup.processes - 1)}",
        )
    else:
        yield ok(f"{workers} data workers, {cores} processor cores", key)
    free = free_shared_memory()
    if workers and free is not None:
        shape = batch_shape(checkup, job)
        needed = workers * PREFETCHED * batch_bytes(shape)
        text = (
            f"{workers} workers hold up to {size_text(needed)} of batches in shared memory, "
            f"{size_text(free)} are free there"
        )
        if needed > free:
            gigabytes = max(1, -(-2 * needed // 2**30))
            yield error(
                text, key, advice=f"enlarge /dev/shm (docker run --shm-size {gigabytes}g), or set {key} 0"
            )
        else:
            yield ok(text, key)


def batch_bytes(shape: BatchShape) -> int:
    """Return the bytes of the images of a batch."""
    return 4 * 3 * shape.images * shape.height * shape.width


def _grouping(checkup: Checkup, job: Job) -> Iterator[Finding]:
    """Check small data: a batch may be larger than the data, or than the landscape or portrait images."""
    if job.phase > 0:
        return  # images of a step are sampled by class
    try:
        order = checkup.plan.seen_ids(0) if checkup.lst else None
        datasets = checkup.datasets(checkup.cfg, order)
    except NotChecked:
        return
    records = [d.get_img_info(i) for d in datasets for i in range(len(d))]
    if not records:
        yield error(
            "no training image has a usable object",
            "DATASETS.TRAIN" if not checkup.lst else "LST.ANN_TRAIN",
            advice="check the annotation file: boxes need sides above one pixel and must not be crowds",
        )
        return
    batch, key = job.cfg.SOLVER.IMS_PER_BATCH, job.solver_key("IMS_PER_BATCH")
    if len(records) < batch:
        yield warning(
            f"a batch of {batch} holds images twice: there are {len(records)}",
            key,
            advice=f"set {key} {checkup.processes * max(1, len(records) // checkup.processes)}",
        )
    if not job.cfg.DATALOADER.ASPECT_RATIO_GROUPING:
        return
    if any(job.cfg.INPUT.FIXED_SIZE_TRAIN):
        yield note(
            "grouping by aspect ratio saves nothing where all images get one size; "
            "DATALOADER.ASPECT_RATIO_GROUPING False mixes batches better",
            "DATALOADER.ASPECT_RATIO_GROUPING",
            "INPUT.FIXED_SIZE_TRAIN",
        )
    per_process = max(1, batch // checkup.processes)
    counts = Counter(aspect_groups(r["height"] / r["width"] for r in records))
    small = {("portrait" if g else "landscape"): n for g, n in counts.items() if n < per_process}
    for name, count in small.items():
        yield warning(
            f"there are {count} {name} images, less than the {per_process} of a batch of one process: "
            "grouping repeats them in every batch of theirs",
            "DATALOADER.ASPECT_RATIO_GROUPING",
            key,
            advice="set DATALOADER.ASPECT_RATIO_GROUPING False",
        )
