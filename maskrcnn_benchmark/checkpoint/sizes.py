"""How many numbers each part of a network holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from maskrcnn_benchmark.checkpoint.matching import strip_module_prefix
from maskrcnn_benchmark.checkpoint.trim import CLASS_LAYERS

OTHER = "other"
PARTS = (
    "backbone.body",
    "backbone.fpn",
    "rpn",
    "roi_heads.box.feature_extractor",
    "roi_heads.mask.feature_extractor",
    "roi_heads.mask.predictor",
    *CLASS_LAYERS,
)
"""Parts of a two-stage detector; layers that depend on the classes are parts of their own."""


def part_sizes(state: Mapping[str, Tensor], parts: Sequence[str] = PARTS) -> dict[str, tuple[int, int]]:
    """(tensors, numbers) of every part that `state` holds, in the order of `parts`.

    A tensor belongs to the longest part that its name begins with, whole components only; what fits none is
    under "other". A prefix `module.` is passed over.
    """
    sizes: dict[str, tuple[int, int]] = {}
    for name, tensor in strip_module_prefix(state).items():
        part = max((p for p in parts if name.startswith(f"{p}.")), key=len, default=OTHER)
        tensors, numbers = sizes.get(part, (0, 0))
        sizes[part] = tensors + 1, numbers + tensor.numel()
    return {part: sizes[part] for part in (*parts, OTHER) if part in sizes}
