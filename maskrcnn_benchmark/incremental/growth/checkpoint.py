"""Checkpoint surgery before a step: rows for the new classes are appended (lst spec section 8.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.checkpoint.io import read_checkpoint, save_atomic
from maskrcnn_benchmark.utils.errors import CheckpointError

_CLASSIFIER = "roi_heads.box.predictor.cls_score"
_REGRESSOR = "roi_heads.box.predictor.bbox_pred"
_MASK_LOGITS = "roi_heads.mask.predictor.mask_fcn_logits"
_PREFIX = "module."


def grow_state(
    state: Mapping[str, Tensor],
    old: int,
    new: int,
    *,
    cls_std: float,
    reg_std: float,
    generator: torch.Generator,
    agnostic_boxes: bool = False,
    new_rows: Mapping[int, Tensor] | None = None,
) -> dict[str, Tensor]:
    """A state dict with rows for `new` - `old` more classes; every old row is copied bit for bit.

    Classifier rows are drawn from N(0, cls_std), class-specific box regression (4 rows per class) from
    N(0, reg_std), biases are 0. A per-class mask predictor, where the model has one, grows with its own
    initialisation (normal, fan out). The background is row 0 and classes are appended: nothing moves.

    Args:
        state: tensors by name, with or without the prefix "module."; names are kept.
        old, new: outputs before and after, the background counted.
        generator: source of the new rows (CPU).
        agnostic_boxes: box regression does not depend on the class (MODEL.CLS_AGNOSTIC_BBOX_REG) and stays.
        new_rows: classifier rows (D,) by label that take the place of drawn ones.

    Raises:
        CheckpointError: when the classifier is missing or has not `old` rows.
    """
    grown = dict(state)
    names = {name.removeprefix(_PREFIX): name for name in state}
    if f"{_CLASSIFIER}.weight" not in names:
        raise CheckpointError(f"{_CLASSIFIER}.weight is missing: only checkpoints with a box head can grow")
    layers = [(_CLASSIFIER, 1, cls_std)]
    if not agnostic_boxes:
        layers.append((_REGRESSOR, 4, reg_std))
    mask_logits = names.get(f"{_MASK_LOGITS}.weight")
    if mask_logits is not None:
        kernel_area = state[mask_logits].shape[2:].numel()
        layers.append((_MASK_LOGITS, 1, math.sqrt(2.0 / (new * kernel_area))))
    for module, per_class, std in layers:
        for part, deviation in (("weight", std), ("bias", 0.0)):
            name = names.get(f"{module}.{part}")
            if name is None:
                continue
            if state[name].shape[0] != per_class * old:
                raise CheckpointError(
                    f"{name} has {len(state[name])} rows, expected {per_class * old} for {old - 1} classes"
                )
            grown[name] = _append_rows(state[name], per_class * (new - old), deviation, generator)
    classifier = names[f"{_CLASSIFIER}.weight"]
    for label, row in (new_rows or {}).items():
        grown[classifier][label] = row.to(grown[classifier].dtype)
    return grown


def grow_checkpoint(
    source: str | Path,
    target: str | Path,
    *,
    old_names: Sequence[str],
    new_names: Sequence[str],
    cls_std: float,
    reg_std: float,
    generator: torch.Generator,
    agnostic_boxes: bool = False,
    new_rows: Mapping[int, Tensor] | None = None,
) -> None:
    """Read the final checkpoint of a phase and write the start checkpoint of the next one.

    Optimizer, schedule and iteration are dropped. `old_names` and `new_names` are class names by label
    with the background first; the new list must begin with the old one.

    Raises:
        CheckpointError: when the class list stored in `source` is another than `old_names`, or see
        `grow_state`.
    """
    checkpoint = read_checkpoint(source)
    check_classes(checkpoint, old_names, source)
    if list(new_names[: len(old_names)]) != list(old_names):
        raise CheckpointError(
            f"{source}: the classes of the next phase do not continue those of the checkpoint"
        )
    try:
        state = grow_state(
            checkpoint["model"],
            len(old_names),
            len(new_names),
            cls_std=cls_std,
            reg_std=reg_std,
            generator=generator,
            agnostic_boxes=agnostic_boxes,
            new_rows=new_rows,
        )
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    save_atomic({"model": state, "classes": list(new_names)}, target)


def classifier_outputs(state: Mapping[str, Tensor], path: str | Path) -> int:
    """Classes of a model with box head, the background counted; CheckpointError naming `path` without."""
    for name, tensor in state.items():
        if name.removeprefix(_PREFIX) == f"{_CLASSIFIER}.weight":
            return len(tensor)
    raise CheckpointError(f"{path}: {_CLASSIFIER}.weight is missing: only checkpoints with a box head fit")


def add_classes(source: str | Path, target: str | Path, count: int, **options: Any) -> int:
    """Grow a checkpoint by `count` classes whose names are not known; no class list is stored.

    `options`: see `grow_state`. Returns the outputs before, the background counted.
    """
    state = read_checkpoint(source)["model"]
    old = classifier_outputs(state, source)
    try:
        grown = grow_state(state, old, old + count, **options)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    save_atomic({"model": grown}, target)
    return old


def check_classes(checkpoint: Mapping[str, Any], names: Sequence[str], path: str | Path) -> None:
    """Raise CheckpointError when a checkpoint stores a class list other than `names`; none is fine."""
    stored = checkpoint.get("classes")
    if stored is None or list(stored) == list(names):
        return
    where = next(
        (i for i, (a, b) in enumerate(zip(stored, names, strict=False)) if a != b),
        min(len(stored), len(names)),
    )
    found = stored[where] if where < len(stored) else "nothing"
    expected = names[where] if where < len(names) else "nothing"
    raise CheckpointError(
        f"{path}: its class list ({len(stored)} names) is not the one of this run ({len(names)} names): "
        f'label {where} is "{found}", expected "{expected}"; use the annotations, class order and settings '
        "of its run"
    )


def _append_rows(tensor: Tensor, count: int, std: float, generator: torch.Generator) -> Tensor:
    """`tensor` with `count` rows from N(0, std) (zeros for std 0) behind its own, in its dtype."""
    shape = (count, *tensor.shape[1:])
    fresh = torch.randn(shape, generator=generator) * std if std else torch.zeros(shape)
    return torch.cat([tensor, fresh.to(tensor.dtype)])
