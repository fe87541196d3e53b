"""Check the weight file, and which of its tensors would go into the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from maskrcnn_benchmark.checkpoint.completeness import refuse_part_of_a_head
from maskrcnn_benchmark.checkpoint.download import cache_path, is_url
from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.checkpoint.load import read_weights
from maskrcnn_benchmark.checkpoint.matching import MatchReport, deform_names, match_names
from maskrcnn_benchmark.config.models import class_count_key
from maskrcnn_benchmark.config.weights import resolve_weight
from maskrcnn_benchmark.doctor.checkup import TRAIN, Checkup, Job
from maskrcnn_benchmark.doctor.finding import Finding, NotChecked, error, listed, note, ok, size_text, warning
from maskrcnn_benchmark.doctor.models import job_model
from maskrcnn_benchmark.doctor.preparation import check_preparation
from maskrcnn_benchmark.incremental.plan.run_folder import FINAL_WEIGHTS, phase_folder
from maskrcnn_benchmark.utils.errors import UsageError

_KEY, _FREEZE = "MODEL.WEIGHT", "MODEL.BACKBONE.FREEZE_CONV_BODY_AT"
_BACKBONE, _CLASSIFIER = "backbone.body.", "cls_score.weight"
_FREEZE_OF = {-1: _FREEZE, 0: "LST.FREEZE_BASE"}


def check_weights(checkup: Checkup) -> Iterator[Finding]:
    """Yield findings on MODEL.WEIGHT or the file that was given instead."""
    first = checkup.jobs[0]
    if first.phase > 0 and not checkup.weights:
        yield _before(checkup, first)
        return
    value = checkup.weights or checkup.cfg.MODEL.WEIGHT
    if not value:
        yield from _random(first)
        return
    try:
        path = resolve_weight(checkup.cfg, value)
    except UsageError as problem:
        yield error(str(problem), _KEY, advice="correct the name")
        return
    if is_url(path):
        local = cache_path(path)
        if not local.is_file():
            yield note(
                f"{value} is not on this computer: it will be downloaded to {local}",
                _KEY,
                advice=f"without network, fetch {path} and put it there",
            )
            yield from check_preparation(checkup.cfg, path, {})
            return
        path = str(local)
    if not Path(path).is_file():
        yield error(
            f"weight file {path} does not exist",
            _KEY,
            advice="put it there, change MODEL.WEIGHT, or give MODEL.WEIGHT '' to start from random weights",
        )
        return
    yield ok(f"{path} is there ({size_text(Path(path).stat().st_size)})", _KEY)
    if checkup.quick:
        yield note("its content is not read with --quick", _KEY)
        return
    yield from _content(checkup, path)


def _before(checkup: Checkup, job: Job) -> Finding:
    """Check a run of later phases alone (LST.PHASES), which starts from the model of the phase before."""
    path = phase_folder(checkup.run_dir, job.phase - 1) / FINAL_WEIGHTS
    if path.is_file():
        return ok(f"{job.name} starts from {path}, which is there", "LST.PHASES")
    advice = f"run phase {job.phase - 1} first, or name its OUTPUT_DIR"
    return error(f"{job.name} starts from {path}, which does not exist", "LST.PHASES", advice=advice)


def _random(job: Job) -> Iterator[Finding]:
    """Check a start from random weights: nothing may stay frozen, and normalisation must adapt."""
    cfg, freeze = job.cfg, job.cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT
    if freeze > 0:
        yield error(
            f"training starts from random weights and {_FREEZE} {freeze} keeps the first stages of the "
            "backbone at them",
            _KEY,
            _FREEZE_OF[job.phase],
            advice=f"give MODEL.WEIGHT, or set {_FREEZE_OF[job.phase]} 0",
        )
    if "FixedBatchNorm" in cfg.MODEL.RESNETS.TRANS_FUNC:
        yield warning(
            "training starts from random weights with fixed batch norm, which does not normalise then",
            _KEY,
            "MODEL.RESNETS.TRANS_FUNC",
            "MODEL.RESNETS.STEM_FUNC",
            advice="give MODEL.WEIGHT, or use group norm (BottleneckWithGN, StemWithGN)",
        )
    elif freeze <= 0:
        yield ok("training starts from random weights; nothing is frozen, group norm normalises", _KEY)


def _content(checkup: Checkup, path: str) -> Iterator[Finding]:
    """Compare the tensors of a file with the model of the training that starts from it."""
    try:
        state = read_weights(path, conv_body=checkup.cfg.MODEL.BACKBONE.CONV_BODY, device="meta")
        record = {} if path.endswith(".pkl") else read_checkpoint(path, "meta", verify=False)
    except UsageError as problem:
        yield error(str(problem), _KEY, advice="get the file again or name another one")
        return
    job = _job_of(checkup, state)
    model = job_model(job)
    targets = model.state_dict()
    report = match_names(
        {name: tuple(t.shape) for name, t in targets.items()},
        {name: tuple(t.shape) for name, t in deform_names(state, targets).items()},
    )
    yield from _matches(job, model, report, path)
    if not job.cfg.MODEL.WEIGHT_ALLOW_MISMATCH:
        try:
            refuse_part_of_a_head(report, path)
        except UsageError as problem:
            yield error(str(problem), _KEY, advice="name a file of this model, or of a backbone alone")
    yield from _classes(checkup, job, record, path)
    yield from check_preparation(checkup.cfg, path, record)
    if "iteration" in record and "optimizer" in record:
        yield note(
            f"{path} is a checkpoint of a run at iteration {record['iteration']}; as MODEL.WEIGHT it gives "
            "its weights alone",
            _KEY,
            advice="to continue that run, use its OUTPUT_DIR",
        )


def _job_of(checkup: Checkup, state: Mapping[str, Tensor]) -> Job:
    """Return the training that a file is for: the first, or for a given file the phase of its size."""
    rows = next((len(t) for name, t in state.items() if name.endswith(_CLASSIFIER)), 0)
    fits = [j for j in checkup.jobs if rows == j.cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES]
    return fits[0] if checkup.weights and fits else checkup.jobs[0]


def _matches(job: Job, model: nn.Module, report: MatchReport, path: str) -> Iterator[Finding]:
    """Report loaded, missing and mismatched tensors."""
    total = len(report.matched) + len(report.missing) + len(report.mismatched)
    if not report.matched:
        yield error(
            f"no tensor of {path} fits the model of {job.name}; the file begins with "
            f"{listed(report.unexpected, 3)}",
            _KEY,
            advice="name a file for this MODEL.BACKBONE.CONV_BODY",
        )
        return
    text = f"{len(report.matched)} of {total} tensors of {job.name} come from {path}"
    yield ok(f"{text}; {len(report.unexpected)} tensors of the file are not used", _KEY)
    if report.mismatched:
        shapes = [f"{m.model_name} {m.file_shape} -> {m.model_shape}" for m in report.mismatched]
        allowed = job.cfg.MODEL.WEIGHT_ALLOW_MISMATCH
        text = f"{len(shapes)} tensors have another shape in the file: {listed(shapes, 4)}"
        if allowed:
            yield note(f"{text}; they start at random", "MODEL.WEIGHT_ALLOW_MISMATCH")
        else:
            yield error(
                text,
                _KEY,
                class_count_key(job.cfg) or "MODEL.ROI_BOX_HEAD.NUM_CLASSES",
                "MODEL.WEIGHT_ALLOW_MISMATCH",
                advice="check NUM_CLASSES and CONV_BODY, or set MODEL.WEIGHT_ALLOW_MISMATCH True to "
                "fine-tune",
            )
    fresh = report.missing + [m.model_name for m in report.mismatched]
    learned = {n: p for n, p in model.named_parameters() if n in set(fresh)}
    frozen = [name for name, parameter in learned.items() if not parameter.requires_grad]
    backbone = [name for name in learned if name.startswith(_BACKBONE)]
    if frozen:
        yield error(
            f"{len(frozen)} frozen tensors are not in the file and would stay at random values: "
            f"{listed(frozen, 4)}",
            _KEY,
            _FREEZE_OF.get(job.phase, "LST.FREEZE_STEP"),
            advice="name a file with the whole backbone, or freeze less",
        )
    elif backbone:
        yield warning(
            f"{len(backbone)} tensors of the backbone are not in the file and start at random: "
            f"{listed(backbone, 4)}",
            _KEY,
            advice="name a file for this MODEL.BACKBONE.CONV_BODY",
        )
    elif learned:
        modules = list(dict.fromkeys(name.rpartition(".")[0] for name in learned))
        yield note(f"{len(learned)} tensors behind the backbone start at random: {listed(modules, 8)}", _KEY)


def _classes(checkup: Checkup, job: Job, record: Mapping[str, Any], path: str) -> Iterator[Finding]:
    """Compare the class list that is stored with the weights with that of the data."""
    stored = record.get("classes")
    if not stored:
        return
    try:
        names = _class_names(checkup, job)
    except (NotChecked, UsageError) as why:
        yield note(f"the class list of {path} ({len(stored)} names) is not compared: {why}", _KEY)
        return
    if list(stored) == names:
        yield ok(f"{path} was trained on the same {len(names) - 1} classes", _KEY)
        return
    index = next(
        (i for i, (a, b) in enumerate(zip(stored, names, strict=False)) if a != b),
        min(len(stored), len(names)),
    )
    here, there = (row[index] if index < len(row) else "nothing" for row in (names, list(stored)))
    text = (
        f"{path} was trained on other classes ({len(stored)} names, the data has {len(names)}): label "
        f"{index} is {there!r} there and {here!r} here"
    )
    if len(stored) == len(names):
        advice = (
            "use the data it was trained on, or drop its classifier: weights of other classes would be loaded"
        )
        yield warning(text, _KEY, advice=advice)
    else:
        yield note(text, _KEY)


def _class_names(checkup: Checkup, job: Job) -> list[str]:
    """Return class names by label, background first, of a training."""
    if checkup.lst:
        return checkup.plan.names(job.phase)
    categories = checkup.annotations(TRAIN)[0][1].categories
    return ["__background__", *(c["name"] for c in categories)]
