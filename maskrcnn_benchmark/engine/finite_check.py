"""Training stops when a loss or the gradient is not finite, on all ranks together, before weights change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.errors import UsageError

GRADIENT = "gradient norm"


@dataclass
class MicroBatch:
    """What one forward pass left: its losses (0-dim tensors) and the images they came from.

    `image_ids` are ids of the annotation file, `indices` positions in the data set.
    """

    losses: dict[str, Tensor]
    image_ids: list[int]
    indices: list[int] = field(default_factory=list)


@dataclass
class Culprit:
    """A number that is not finite: its first such value, and the images of the passes that had it."""

    name: str
    value: float
    image_ids: list[int] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)

    def add(self, image_ids: Sequence[int], indices: Sequence[int]) -> None:
        """Images that may be the reason, each once."""
        self.image_ids = list(dict.fromkeys([*self.image_ids, *image_ids]))
        self.indices = list(dict.fromkeys([*self.indices, *indices]))

    def __str__(self) -> str:
        return f"{self.name} is {self.value} (image ids {', '.join(map(str, self.image_ids))})"


class NonFiniteError(UsageError):
    """A loss or the gradient became NaN or infinite; names the losses and the image ids.

    Attributes: `culprits`; `values`, every loss of the update; `iteration`, counted from 1; `lr`.
    """

    def __init__(
        self, message: str, culprits: Sequence[Culprit], values: dict[str, float], iteration: int, lr: float
    ) -> None:
        super().__init__(message)
        self.culprits = list(culprits)
        self.values = values
        self.iteration = iteration
        self.lr = lr


def _culprits(passes: Sequence[MicroBatch]) -> list[Culprit]:
    """The non-finite losses of this rank."""
    found: dict[str, Culprit] = {}
    for one in passes:
        for name, tensor in one.losses.items():
            value = float(tensor)
            if not math.isfinite(value):
                found.setdefault(name, Culprit(name, value)).add(one.image_ids, one.indices)
    return list(found.values())


def check_finite(
    values: dict[str, float], passes: Sequence[MicroBatch], *, iteration: int, lr: float
) -> None:
    """Raise NonFiniteError if a number of `values` is not finite.

    `values` must be equal on all ranks (reduced), so that all of them stop; the images come from the
    ranks where the loss went wrong. `iteration` counts from 1.
    """
    if all(math.isfinite(value) for value in values.values()):
        return
    merged: dict[str, Culprit] = {}
    for part in comm.all_gather_objects(_culprits(passes)):
        for one in part:
            merged.setdefault(one.name, Culprit(one.name, one.value)).add(one.image_ids, one.indices)
    if not merged:
        bad = next(name for name, value in values.items() if not math.isfinite(value))
        merged[bad] = Culprit(bad, values[bad])
        mine = [(one.image_ids, one.indices) for one in passes]
        for theirs in comm.all_gather_objects(mine):
            for image_ids, indices in theirs:
                merged[bad].add(image_ids, indices)
    culprits = list(merged.values())
    message = f"training stopped at iteration {iteration}: {'; '.join(map(str, culprits))}"
    raise NonFiniteError(message, culprits, values, iteration, lr)
