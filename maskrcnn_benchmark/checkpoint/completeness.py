"""Refuse files of another variant of a model, which would load for the most part and detect nothing."""

from __future__ import annotations

from collections.abc import Sequence

from maskrcnn_benchmark.checkpoint.matching import MatchReport, group_by_module
from maskrcnn_benchmark.config.compat import USE_C5
from maskrcnn_benchmark.config.models import families
from maskrcnn_benchmark.utils.errors import CheckpointError
from maskrcnn_benchmark.utils.files import StrPath

_HEAD, _LISTED = "rpn.head.", 4
_PARTS = ("backbone.", "rpn.")
# Beginnings of names that several families have, and the key that decides whether a model has them.
_KEYS: tuple[tuple[str, str], ...] = (
    ("rpn.head.cls_tower", "NUM_CONVS, TOWER_NORM and TOWER_BIAS of the head"),
    ("rpn.head.bbox_tower", "NUM_CONVS, TOWER_NORM and TOWER_BIAS of the head"),
    ("rpn.head", "MODEL.HEAD or its published switch"),
    ("backbone.body", "MODEL.BACKBONE.CONV_BODY and MODEL.RESNETS"),
    ("backbone.fpn", f"MODEL.NECK, the ending of MODEL.BACKBONE.CONV_BODY and {USE_C5}"),
)


def needed_names(report: MatchReport) -> list[str]:
    """Missing tensors that a model needs: all but anchors (the config gives them) and batch norm counters."""
    return [
        name
        for name in report.missing
        if "anchor_generator" not in name and not name.endswith("num_batches_tracked")
    ]


def refuse_part_of_a_head(report: MatchReport, path: StrPath) -> None:
    """Refuse a file from which a one-stage model would start training with a part of its head.

    A file without a head (of a backbone) is valid, and so is one with exactly the head of the model.

    Raises:
        CheckpointError: listing the modules and the keys that decide about them.
    """
    in_model = [*report.matched, *report.missing, *(m.model_name for m in report.mismatched)]
    if any(name.startswith("roi_heads.") for name in in_model):
        return
    missing, unexpected = (
        [name for name in names if name.startswith(_HEAD)]
        for names in (needed_names(report), report.unexpected)
    )
    present = [name for name in (*report.matched.values(), *unexpected) if name.startswith(_HEAD)]
    if present and (missing or unexpected):
        fix = "or set MODEL.WEIGHT_ALLOW_MISMATCH True to start with what fits"
        raise CheckpointError(_text(path, missing, unexpected, fix))


def refuse_incomplete(report: MatchReport, path: StrPath) -> None:
    """Refuse a file that does not have exactly the backbone and first stage of a model that will detect.

    Raises:
        CheckpointError: listing the modules and the keys that decide about them.
    """
    missing = needed_names(report)
    unexpected = [
        name
        for name in report.unexpected
        if name.startswith(_PARTS)
        and "anchor_generator" not in name
        and not name.endswith("num_batches_tracked")
    ]
    if missing or unexpected:
        raise CheckpointError(_text(path, missing, unexpected, "the configuration must be that of the file"))


def _text(path: StrPath, missing: Sequence[str], unexpected: Sequence[str], fix: str) -> str:
    """The error text: modules and the keys that decide about them, in one line."""
    parts = [
        f"{what} {len(names)} {'tensor' if len(names) == 1 else 'tensors'}: {_listed(names)}"
        for what, names in (("it lacks", missing), ("the model does not have", unexpected))
        if names
    ]
    keys = dict.fromkeys(key for name in (*missing, *unexpected) if (key := _deciding_key(name)))
    check = f"check {'; '.join(keys)}; " if keys else ""
    return f"{path} is a file of another model; {'; '.join(parts)}; {check}{fix}"


def _deciding_key(name: str) -> str:
    """Return the key that decides whether a model has a parameter, "" when it is not known."""
    declared = [pair for family in families() for pair in family.tensor_keys]
    return next((key for start, key in (*declared, *_KEYS) if name.startswith(start)), "")


def _listed(names: Sequence[str]) -> str:
    """The first modules and how many follow."""
    groups = group_by_module(names)
    more = f" and {len(groups) - _LISTED} more modules" if len(groups) > _LISTED else ""
    return ", ".join(groups[:_LISTED]) + more
