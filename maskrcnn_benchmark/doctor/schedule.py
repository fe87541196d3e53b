"""Check learning rate, batch, iterations and milestones of every training against each other and the data."""

from __future__ import annotations

from collections.abc import Iterator

from maskrcnn_benchmark.config.models import model_family
from maskrcnn_benchmark.doctor.checkup import Checkup, Job
from maskrcnn_benchmark.doctor.finding import Finding, note, ok, warning

PUBLISHED_STEP_LR, PUBLISHED_BATCH = 0.005, 16
"""Learning rate of the steps of the LST release, and its images per update."""

FACTOR = 2.0
"""Rates within this factor of the published ones are usual."""

ADAMW_LR = 1e-3
"""Above this rate AdamW seldom trains a detector."""

LONG = 5000
"""Iterations that one does not want to repeat."""

_SLACK = 1.001  # the factor itself is still usual, whatever rounding does


def check_schedule(checkup: Checkup) -> Iterator[Finding]:
    """Yield findings on SOLVER, of every training of the run."""
    for job in checkup.jobs:
        yield from _rate(job)
        yield from _warm_up(job)
        yield from _milestones(job)
        yield from _epochs(job)
        yield from _periods(checkup, job)


def _prefix(job: Job) -> str:
    return f"{job.name}: " if job.phase >= 0 else ""


def _per_update(job: Job) -> int:
    """Return the number of images of one update."""
    return job.cfg.SOLVER.IMS_PER_BATCH * job.cfg.SOLVER.ACCUMULATION_STEPS


def _rate(job: Job) -> Iterator[Finding]:
    """Check the linear scaling rule: the rate grows with the images of an update (Goyal et al. 2017)."""
    solver, batch = job.cfg.SOLVER, _per_update(job)
    keys = (job.solver_key("BASE_LR"), job.solver_key("IMS_PER_BATCH"))
    if solver.OPTIMIZER == "ADAMW":
        text = f"{_prefix(job)}AdamW with a rate of {solver.BASE_LR:g}"
        if solver.BASE_LR > ADAMW_LR:
            yield warning(
                text, job.solver_key("BASE_LR"), advice="begin with 0.0001: rates of SGD are too large for it"
            )
        else:
            yield ok(text, job.solver_key("BASE_LR"))
        return
    published = model_family(job.cfg).published_lr
    rule = published * batch / PUBLISHED_BATCH
    minimum = (PUBLISHED_STEP_LR * batch / PUBLISHED_BATCH if job.phase > 0 else rule) / FACTOR
    text = (
        f"{_prefix(job)}rate {solver.BASE_LR:g} for {batch} images per update; published: "
        f"{published:g} per {PUBLISHED_BATCH}, which gives {rule:g}"
    )
    if job.phase > 0:
        text += f" (LST steps: {PUBLISHED_STEP_LR * batch / PUBLISHED_BATCH:g})"
    if rule * FACTOR * _SLACK < solver.BASE_LR:
        consequence = f"{solver.BASE_LR / rule:.1f} times the rule: losses may become infinite"
        yield warning(f"{text}; {consequence}", *keys, advice=f"set {job.solver_key('BASE_LR')} {rule:g}")
    elif minimum > solver.BASE_LR * _SLACK:
        yield warning(
            f"{text}; {rule / solver.BASE_LR if solver.BASE_LR else float('inf'):.1f} times below the "
            "rule: the model may learn too little",
            *keys,
            advice=f"set {job.solver_key('BASE_LR')} {rule:g}",
        )
    else:
        yield ok(text, *keys)


def _warm_up(job: Job) -> Iterator[Finding]:
    """Check the warm-up."""
    solver = job.cfg.SOLVER
    if solver.WARMUP_ITERS >= solver.MAX_ITER:
        yield warning(
            f"{_prefix(job)}the warm-up of {solver.WARMUP_ITERS} iterations is not over before the end at "
            f"{solver.MAX_ITER}: the rate never becomes {solver.BASE_LR:g}",
            job.solver_key("WARMUP_ITERS"),
            job.solver_key("MAX_ITER"),
            advice=f"set {job.solver_key('WARMUP_ITERS')} {max(1, solver.MAX_ITER // 20)}, or train longer",
        )
    elif solver.WARMUP_ITERS == 0 and job.phase <= 0 and solver.OPTIMIZER == "SGD":
        yield warning(
            f"{_prefix(job)}no warm-up: new layers see the full rate of {solver.BASE_LR:g} from the first "
            "update",
            job.solver_key("WARMUP_ITERS"),
            advice=f"set {job.solver_key('WARMUP_ITERS')} 500",
        )
    if solver.LR_SCHEDULER == "step" and solver.STEPS and solver.STEPS[0] < solver.WARMUP_ITERS:
        yield warning(
            f"{_prefix(job)}the rate drops at iteration {solver.STEPS[0]}, inside the warm-up of "
            f"{solver.WARMUP_ITERS}",
            job.solver_key("STEPS"),
            job.solver_key("WARMUP_ITERS"),
            advice="let the first drop come after the warm-up",
        )


def _milestones(job: Job) -> Iterator[Finding]:
    """Check that the rate drops inside the run."""
    solver = job.cfg.SOLVER
    if solver.LR_SCHEDULER == "cosine":
        yield ok(
            f"{_prefix(job)}cosine from {solver.BASE_LR:g} to 0 in {solver.MAX_ITER} iterations",
            job.solver_key("STEPS"),
        )
        return
    late = [step for step in solver.STEPS if step >= solver.MAX_ITER]
    keys = (job.solver_key("STEPS"), job.solver_key("MAX_ITER"))
    if late:
        yield warning(
            f"{_prefix(job)}drops at {late} are never reached: the run ends at {solver.MAX_ITER}",
            *keys,
            advice=f"set {job.solver_key('STEPS')} ({solver.MAX_ITER * 2 // 3}, {solver.MAX_ITER * 8 // 9})",
        )
    elif not solver.STEPS:
        yield note(f"{_prefix(job)}the rate never drops", *keys)
    else:
        yield ok(f"{_prefix(job)}{solver.MAX_ITER} iterations, drops at {list(solver.STEPS)}", *keys)


def _epochs(job: Job) -> Iterator[Finding]:
    """Count how often every image (in a step: every pair of the balanced epoch) is seen."""
    keys = (job.solver_key("MAX_ITER"), job.solver_key("IMS_PER_BATCH"))
    if job.epoch is None:
        yield note(f"{_prefix(job)}epochs are not computed: the annotations are not read", *keys)
        return
    samples = job.cfg.SOLVER.MAX_ITER * _per_update(job)
    epochs = samples / max(1, job.epoch)
    what = "image and class pairs of a balanced epoch" if job.phase > 0 else "usable images"
    text = f"{_prefix(job)}{samples} samples are {epochs:.1f} epochs of {job.epoch} {what}"
    if epochs < 1:
        needed = -(-job.epoch // _per_update(job))
        yield warning(
            f"{text}: some are never seen",
            *keys,
            advice=f"set {job.solver_key('MAX_ITER')} to {needed} or more",
        )
    else:
        yield ok(text, *keys)


def _periods(checkup: Checkup, job: Job) -> Iterator[Finding]:
    """Check the periods of checkpoints and tests while training."""
    solver = job.cfg.SOLVER
    if solver.CHECKPOINT_PERIOD >= solver.MAX_ITER > LONG:
        yield warning(
            f"{_prefix(job)}no checkpoint before the end: a run that is stopped starts from the beginning",
            job.solver_key("CHECKPOINT_PERIOD"),
            advice=f"set {job.solver_key('CHECKPOINT_PERIOD')} {max(1, solver.MAX_ITER // 20)}",
        )
    if solver.TEST_PERIOD >= solver.MAX_ITER:
        yield note(
            f"{_prefix(job)}no test before the end ({solver.TEST_PERIOD} iterations)",
            job.solver_key("TEST_PERIOD"),
        )
    if solver.TEST_PERIOD and not checkup.lst and not checkup.cfg.DATASETS.TEST:
        yield warning(
            f"tests every {solver.TEST_PERIOD} iterations have no data",
            job.solver_key("TEST_PERIOD"),
            "DATASETS.TEST",
            advice=f"name a data set in DATASETS.TEST, or set {job.solver_key('TEST_PERIOD')} 0",
        )
