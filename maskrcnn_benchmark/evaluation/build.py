"""The evaluator of a model and a data set, for tests of one phase and of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.config.catalog import KINDS
from maskrcnn_benchmark.config.models import class_count_key, predicts_masks
from maskrcnn_benchmark.evaluation import protocols
from maskrcnn_benchmark.evaluation.base import EVALUATORS, Evaluator
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import StrPath

SWITCHES = {"segm": "MODEL.MASK_ON", "keypoints": "MODEL.KEYPOINT_ON"}
"""Key that switches a task of the model on."""


def tested_tasks(cfg: CfgNode) -> tuple[str, ...]:
    """What the model of `cfg` is tested for: boxes, and masks and keypoints where it predicts them."""
    predicted = {"segm": predicts_masks(cfg), "keypoints": cfg.MODEL.KEYPOINT_ON}
    return ("bbox", *(task for task, is_on in predicted.items() if is_on))


def build_evaluator(
    cfg: CfgNode,
    dataset: Mapping[str, Any],
    label_to_category: Sequence[int],
    *,
    kind: str,
    groups: Mapping[str, Sequence[int]] | None = None,
    shard_folder: StrPath | None = None,
) -> Evaluator:
    """Build the evaluator of the model of `cfg` on a data set of `kind` (a name of `KINDS`).

    A model that only proposes boxes is evaluated by the average recall of its proposals, whatever the kind.
    For the other arguments see `DetectionEvaluator`. Raises DataError when the model predicts what data of
    this kind cannot be tested for.
    """
    if class_count_key(cfg) is None:
        return protocols.proposals.ProposalEvaluator(dataset, shard_folder=shard_folder)
    tasks = tested_tasks(cfg)
    absent = [task for task in tasks if task not in KINDS[kind].tasks]
    if absent:
        raise DataError(
            f"data of kind {kind} cannot be tested for {' and '.join(absent)}; set "
            + " and ".join(f"{SWITCHES[task]} False" for task in absent)
        )
    evaluator = EVALUATORS.get(KINDS[kind].evaluator)
    return evaluator(
        dataset,
        label_to_category,
        tasks,
        groups=groups,
        shard_folder=shard_folder,
        **evaluator.options_from_cfg(cfg),
    )
