"""Start checkpoint of a step: weights of the previous phase, with new classes appended to the heads."""

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
    class_weights: Mapping[int, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Append the parameters of `new` - `old` classes to a state dict; old ones are copied bit for bit.

    Class weights are sampled from N(0, cls_std), class-specific box regression (4 outputs per class) from
    N(0, reg_std), biases are 0. A per-class mask predictor, where the model has one, grows with its usual
    initialisation (normal, fan out). The background is output 0 and classes are appended: nothing moves.

    Args:
        state: tensors by name, with or without the prefix "module."; names are kept.
        old, new: outputs before and after, the background counted.
        generator: samples the new parameters (CPU).
        agnostic_boxes: box regression does not depend on the class (MODEL.CLS_AGNOSTIC_BBOX_REG) and stays.
        class_weights: classifier weights (D,) by label that replace the sampled ones.

    Raises:
        CheckpointError: when the classifier is missing or has not `old` outputs.
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
    for module, per_class, weight_std in layers:
        for part, std in (("weight", weight_std), ("bias", 0.0)):
            name = names.get(f"{module}.{part}")
            if name is None:
                continue
            if state[name].shape[0] != per_class * old:
                raise CheckpointError(
                    f"{name} has {len(state[name])} rows, expected {per_class * old} for {old - 1} classes"
                )
            grown[name] = _append_outputs(state[name], per_class * (new - old), std, generator)
    classifier = names[f"{_CLASSIFIER}.weight"]
    for label, weight in (class_weights or {}).items():
        grown[classifier][label] = weight.to(grown[classifier].dtype)
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
    class_weights: Mapping[int, Tensor] | None = None,
) -> None:
    """Read the final checkpoint of a phase and write the start checkpoint of the next one.

    Optimizer, schedule and iteration are dropped. `old_names` and `new_names` are class names by label
    with the background first; the new list must begin with the old one. `class_weights` are (D,) by label;
    for all other arguments see `grow_state`.

    Raises:
        CheckpointError: when the class list stored in `source` is not `old_names`, or see `grow_state`.
    """
    checkpoint = read_checkpoint(source)
    check_class_list(checkpoint, old_names, source)
    if list(new_names[: len(old_names)]) != list(old_names):
        raise CheckpointError(
            f"{source}: the class list of the next phase does not begin with the {len(old_names)} names of "
            "the checkpoint; use the plan (classes.json) of its run"
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
            class_weights=class_weights,
        )
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    save_atomic({"model": state, "classes": list(new_names)}, target)


def classifier_outputs(state: Mapping[str, Tensor], path: str | Path) -> int:
    """Number of outputs C of the box classifier, whose weight is (C, D), the background counted.

    Raises:
        CheckpointError: naming `path`, when the model has no box head.
    """
    for name, tensor in state.items():
        if name.removeprefix(_PREFIX) == f"{_CLASSIFIER}.weight":
            if tensor.dim() != 2:
                raise CheckpointError(
                    f"{path}: {name} has shape {tuple(tensor.shape)} instead of (classes, D)"
                )
            return len(tensor)
    raise CheckpointError(f"{path}: {_CLASSIFIER}.weight is missing: only checkpoints with a box head fit")


def add_classes(source: str | Path, target: str | Path, count: int, **options: Any) -> int:
    """Grow a checkpoint by `count` classes whose names are not known; no class list is stored.

    `options`: see `grow_state`. Returns the number of outputs before, the background counted.
    """
    state = read_checkpoint(source)["model"]
    old = classifier_outputs(state, source)
    try:
        grown = grow_state(state, old, old + count, **options)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    save_atomic({"model": grown}, target)
    return old


def check_class_list(checkpoint: Mapping[str, Any], names: Sequence[str], path: str | Path) -> None:
    """Raise CheckpointError when a checkpoint stores a class list other than `names`; none is fine."""
    stored = checkpoint.get("classes")
    if stored is None or list(stored) == list(names):
        return
    label = next(
        (i for i, (a, b) in enumerate(zip(stored, names, strict=False)) if a != b),
        min(len(stored), len(names)),
    )
    actual = stored[label] if label < len(stored) else "nothing"
    expected = names[label] if label < len(names) else "nothing"
    raise CheckpointError(
        f"{path}: its class list ({len(stored)} names) is not the one of this run ({len(names)} names): "
        f'label {label} is "{actual}", expected "{expected}"; use the annotations, class order and settings '
        "of its run"
    )


def _append_outputs(tensor: Tensor, count: int, std: float, generator: torch.Generator) -> Tensor:
    """Append outputs from N(0, std), zeros for std 0, to `tensor`: (C, ...) becomes (C + count, ...)."""
    shape = (count, *tensor.shape[1:])
    appended = torch.randn(shape, generator=generator) * std if std else torch.zeros(shape)
    return torch.cat([tensor, appended.to(tensor.dtype)])
