"""Training stops when a loss or the gradient is not finite, on all ranks together, before weights change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.errors import UsageError

GRADIENT = "gradient norm"


class NonFiniteError(UsageError):
    """A loss or the gradient became NaN or infinite; names the losses and the image ids."""


@dataclass
class MicroBatch:
    """What one forward pass left: its losses (0-dim tensors) and the pictures they came from."""

    losses: dict[str, Tensor]
    image_ids: list[int]


def _culprits(passes: Sequence[MicroBatch]) -> dict[str, tuple[float, list[int]]]:
    """Per non-finite loss of this rank: its first such value and the pictures of the passes that had it."""
    found: dict[str, tuple[float, list[int]]] = {}
    for one in passes:
        for name, tensor in one.losses.items():
            value = float(tensor)
            if not math.isfinite(value):
                first, image_ids = found.setdefault(name, (value, []))
                image_ids.extend(one.image_ids)
    return found


def check_finite(
    values: dict[str, float], passes: Sequence[MicroBatch], *, iteration: int, lr: float
) -> None:
    """Raise NonFiniteError if a number of ``values`` is not finite.

    ``values`` must be equal on all ranks (reduced), so that all of them stop; the pictures come from the
    ranks where the loss went wrong. ``iteration`` counts from 1.
    """
    if all(math.isfinite(value) for value in values.values()):
        return
    merged: dict[str, tuple[float, list[int]]] = {}
    for part in comm.all_gather_objects(_culprits(passes)):
        for name, (value, image_ids) in part.items():
            merged.setdefault(name, (value, []))[1].extend(image_ids)
    if not merged:
        everything = [
            i for ids in comm.all_gather_objects([i for p in passes for i in p.image_ids]) for i in ids
        ]
        bad = next(name for name, value in values.items() if not math.isfinite(value))
        merged[bad] = (values[bad], everything)
    reasons = "; ".join(
        f"{name} is {value} (image ids {', '.join(str(i) for i in dict.fromkeys(image_ids))})"
        for name, (value, image_ids) in merged.items()
    )
    raise NonFiniteError(
        f"training stopped at iteration {iteration}: {reasons}. The last checkpoint is kept. Look at the "
        f"annotations of these pictures, lower SOLVER.BASE_LR (the rate is {lr:.3g} now) or set "
        "SOLVER.CLIP_GRADIENTS.ENABLED True, and start again"
    )
