"""The reference files of LST, and what checks them."""

from __future__ import annotations

from checks.files import FileKind
from checks.lst.data import check_grow, check_phase_labels, check_splits
from checks.lst.eval import check_evaluation
from checks.lst.model import check_model
from checks.lst.params import check_parameters
from checks.lst.replay import check_replay

KINDS = (
    FileKind(check_splits, pattern="splits.json"),
    FileKind(check_replay, pattern="replay.json"),
    FileKind(check_model, pattern="model.json"),
    FileKind(check_grow, pattern="grow.json"),
    FileKind(check_evaluation, pattern="eval.json"),
    FileKind(check_parameters, pattern="parameters.json"),
    FileKind(check_phase_labels, pattern="eval.json", beside=("splits.json",), job="step_state"),
)
