"""Training stops when a loss or the gradient is not finite, on all ranks together, before weights change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.checkpointer import LAST
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.errors import UsageError
from maskrcnn_benchmark.utils.files import write_json

GRADIENT = "gradient norm"
NONFINITE_FILE = "nonfinite.json"
# Image files named in the message; NONFINITE_FILE lists all.
_MAX_NAMES = 4


@dataclass
class MicroBatch:
    """Losses (scalars) of one forward pass and the images they came from.

    `image_ids` are ids of the annotation file, `indices` positions in the data set.
    """

    losses: dict[str, Tensor]
    image_ids: list[int]
    indices: list[int] = field(default_factory=list)


@dataclass
class NonFiniteValue:
    """A loss or gradient norm that is not finite, and the images of the forward passes that had it."""

    name: str
    value: float
    image_ids: list[int] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)

    def add_images(self, image_ids: Sequence[int], indices: Sequence[int]) -> None:
        """Add images that may be the cause, each once."""
        self.image_ids = list(dict.fromkeys([*self.image_ids, *image_ids]))
        self.indices = list(dict.fromkeys([*self.indices, *indices]))

    def __str__(self) -> str:
        return f"{self.name} is {self.value} (image ids {', '.join(map(str, self.image_ids))})"


class NonFiniteError(UsageError):
    """A loss or the gradient became NaN or infinite; names the losses and the image ids.

    Attributes: `causes`; `values`, every loss of the iteration; `iteration`, counted from 1; `lr`.
    """

    def __init__(
        self,
        message: str,
        causes: Sequence[NonFiniteValue],
        values: dict[str, float],
        iteration: int,
        lr: float,
    ) -> None:
        super().__init__(message)
        self.causes = list(causes)
        self.values = values
        self.iteration = iteration
        self.lr = lr


def check_finite(
    values: dict[str, float], passes: Sequence[MicroBatch], *, iteration: int, lr: float
) -> None:
    """Raise NonFiniteError if any of `values` is not finite.

    `values` must be equal on all ranks (reduced), so that all of them stop; the images are gathered from the
    ranks whose loss is not finite. `iteration` counts from 1.
    """
    if all(math.isfinite(value) for value in values.values()):
        return
    merged: dict[str, NonFiniteValue] = {}
    for per_rank in comm.all_gather_objects(_non_finite_losses(passes)):
        for cause in per_rank:
            value = merged.setdefault(cause.name, NonFiniteValue(cause.name, cause.value))
            value.add_images(cause.image_ids, cause.indices)
    if not merged:
        name = next(name for name, value in values.items() if not math.isfinite(value))
        merged[name] = NonFiniteValue(name, values[name])
        for images in comm.all_gather_objects([(one.image_ids, one.indices) for one in passes]):
            for image_ids, indices in images:
                merged[name].add_images(image_ids, indices)
    causes = list(merged.values())
    message = f"training stopped at iteration {iteration}: {'; '.join(map(str, causes))}"
    raise NonFiniteError(message, causes, values, iteration, lr)


def _non_finite_losses(passes: Sequence[MicroBatch]) -> list[NonFiniteValue]:
    """Losses of this rank that are not finite."""
    causes: dict[str, NonFiniteValue] = {}
    for one in passes:
        for name, tensor in one.losses.items():
            value = float(tensor)
            if not math.isfinite(value):
                cause = causes.setdefault(name, NonFiniteValue(name, value))
                cause.add_images(one.image_ids, one.indices)
    return list(causes.values())


def report_non_finite(
    cfg: CfgNode,
    error: NonFiniteError,
    folder: Path,
    checkpoint: str | None,
    image_name: Callable[[int], str] | None,
) -> NonFiniteError:
    """Write `nonfinite.json` into `folder` and return the error to raise, which says how to resume.

    `checkpoint`: file name of the state before the failed iteration, None when there was none. `image_name`
    maps a position in the data set to the file name. Every rank must call this.
    """
    record = _record(error, checkpoint, image_name)
    comm.on_main(lambda: write_json(folder / NONFINITE_FILE, record, indent=1))
    kept = (
        f"all that was trained is saved in {folder / checkpoint}"
        if checkpoint
        else "nothing had been trained before it"
    )
    files = [name for cause in record["causes"] for name in cause["files"]]
    message = (
        f"{error}; {kept}, details are in {folder / NONFINITE_FILE}. The same command would stop here again: "
        f"check these images{_first_names(files)} and their annotations, lower the learning rate "
        f"({error.lr:.3g} now) or clip gradients, {_overrides(cfg)}, and start again: the run resumes from "
        "there. Should it stop at once, the weights had diverged before: write the name of an older "
        f"checkpoint into {folder / LAST}"
    )
    return NonFiniteError(message, error.causes, error.values, error.iteration, error.lr)


def _record(
    error: NonFiniteError, checkpoint: str | None, image_name: Callable[[int], str] | None
) -> dict[str, Any]:
    """Content of NONFINITE_FILE: plain JSON, with values that are not finite as text."""
    return {
        "iteration": error.iteration,
        "learning_rate": error.lr,
        "checkpoint": checkpoint,
        "values": {name: _to_json(value) for name, value in error.values.items()},
        "causes": [
            {
                "name": cause.name,
                "value": _to_json(cause.value),
                "image_ids": cause.image_ids,
                "files": [image_name(index) for index in cause.indices] if image_name else [],
            }
            for cause in error.causes
        ],
    }


def _to_json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _first_names(names: Sequence[str]) -> str:
    """The first file names in brackets; nothing where none is known."""
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - _MAX_NAMES} more" if len(distinct) > _MAX_NAMES else ""
    return f" ({', '.join(distinct[:_MAX_NAMES])}{more})" if distinct else ""


def _overrides(cfg: CfgNode) -> str:
    """Config overrides for the command line; a phase of an LST run needs its own."""
    if not cfg.LST.ENABLED:
        return f"SOLVER.BASE_LR {cfg.SOLVER.BASE_LR / 2:g} or SOLVER.CLIP_GRADIENTS.ENABLED True"
    halved = f"'SOLVER.BASE_LR', {cfg.SOLVER.BASE_LR / 2:g}"
    clipped = "'SOLVER.CLIP_GRADIENTS.ENABLED', True"
    phase = cfg.LST.PHASE
    given = [f"LST.PHASE_OVERRIDES \"{{'{phase}': [{pair}]}}\"" for pair in (halved, clipped)]
    return " or ".join(given)
