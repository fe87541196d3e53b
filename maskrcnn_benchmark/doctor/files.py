"""Check files that further keys name: class order, published plans and logits, the user's catalog."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from maskrcnn_benchmark.config.user_catalog import load_user_catalog
from maskrcnn_benchmark.data.samplers import FilePairSampler
from maskrcnn_benchmark.doctor.checkup import TRAIN, Checkup, Job
from maskrcnn_benchmark.doctor.finding import Finding, NotChecked, error, note, ok
from maskrcnn_benchmark.incremental.replay.plan import build_replay_plan
from maskrcnn_benchmark.utils.errors import UsageError

_PLAN_KEYS = ("LST.REPLAY.FILE_IMAGES", "LST.REPLAY.FILE_CLASSES")


def check_files(checkup: Checkup) -> Iterator[Finding]:
    """Yield findings on files beside data and weights; nothing where no key names one."""
    cfg = checkup.cfg
    if cfg.PATHS_CATALOG:
        yield from _catalog(cfg.PATHS_CATALOG)
    if not checkup.lst:
        return
    if cfg.LST.SORTED_IDS:
        yield _there(cfg.LST.SORTED_IDS, "LST.SORTED_IDS")
    for job in checkup.jobs:
        if job.phase <= 0:
            continue
        lst = job.cfg.LST
        if lst.DISTILL.ENABLED and lst.DISTILL.FILE:
            yield _there(lst.DISTILL.FILE, "LST.DISTILL.FILE")
        if lst.REPLAY.ENABLED and lst.REPLAY.MODE == "file":
            yield from _plan_files(checkup, job)


def _there(path: str, key: str) -> Finding:
    if Path(path).is_file():
        return ok(f"{path} is there", key)
    return error(f"{path} does not exist", key, advice=f"put it there or change {key}")


def _catalog(path: str) -> Iterator[Finding]:
    try:
        load_user_catalog(path)
    except UsageError as problem:
        yield error(str(problem), "PATHS_CATALOG", advice="correct the file or the path")
    else:
        yield ok(f"{path} runs", "PATHS_CATALOG")


def _plan_files(checkup: Checkup, job: Job) -> Iterator[Finding]:
    """Check the two files of a step: they exist, and fit the data set, the classes and the processes."""
    replay = job.cfg.LST.REPLAY
    findings = [_there(replay.FILE_IMAGES, _PLAN_KEYS[0]), _there(replay.FILE_CLASSES, _PLAN_KEYS[1])]
    missing = [finding for finding in findings if finding.level == "error"]
    if missing or job.epoch is None:
        yield from missing or findings
        return
    try:
        annotations = checkup.annotations(TRAIN)[0][1].outline["annotations"]
        images = len(build_replay_plan(annotations, checkup.plan, job.phase).image_ids)
        FilePairSampler(
            replay.FILE_IMAGES,
            replay.FILE_CLASSES,
            num_images=images,
            num_classes=job.cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES,
            images_per_rank=max(1, job.cfg.SOLVER.IMS_PER_BATCH // checkup.processes),
            num_iters=1,
            world=checkup.processes,
        )
    except NotChecked as why:
        yield note(f"{job.name}: the replay plan is not compared: {why}", *_PLAN_KEYS)
    except UsageError as problem:
        yield error(
            f"{job.name}: {problem}", *_PLAN_KEYS, advice="make the files anew, or set LST.REPLAY.MODE online"
        )
    else:
        yield ok(f"{job.name}: the replay plan fits {images} images", *_PLAN_KEYS)
