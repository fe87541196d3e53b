"""The families in the order in which they are tried, and which of them a file is of."""

from __future__ import annotations

from torch import Tensor

from maskrcnn_benchmark.checkpoint.families.base import State, WeightFamily
from maskrcnn_benchmark.checkpoint.families.caffe2 import CAFFE2
from maskrcnn_benchmark.checkpoint.families.mmdetection_sipmask import MMDETECTION_SIPMASK
from maskrcnn_benchmark.checkpoint.families.torchvision import (
    TORCHVISION_CLASSIFIER,
    TORCHVISION_DETECTOR,
    TORCHVISION_RESNET,
)
from maskrcnn_benchmark.utils.errors import CheckpointError

_PREFIXES = ("backbone.body.", "rpn.head.", "roi_heads.box.")

OURS = WeightFamily(
    name="maskrcnn-benchmark",
    matches=lambda state, path: any(name.startswith(_PREFIXES) for name in state),
    from_ours=dict,
    export_name="ours",
)
"""Files of maskrcnn-benchmark, FCOS and SipMask-benchmark, and those written here."""

FAMILIES = (
    CAFFE2,
    TORCHVISION_DETECTOR,
    MMDETECTION_SIPMASK,
    TORCHVISION_RESNET,
    OURS,
    TORCHVISION_CLASSIFIER,
)
UNKNOWN = WeightFamily(name="unknown", matches=lambda state, path: True)


def family_of(state: State, path: str = "") -> WeightFamily:
    """Recognise a file by its path and its names without a leading `module.`; tensors of any shape (...,)."""
    return next((family for family in FAMILIES if family.matches(state, path)), UNKNOWN)


def export_names() -> tuple[str, ...]:
    """Names of the families that can be written, ours first."""
    return tuple(dict.fromkeys(["ours", *(f.export_name for f in FAMILIES if f.from_ours is not None)]))


def rename_from_ours(state: State, export_name: str) -> dict[str, Tensor]:
    """Tensors of any shape (...,) under our names -> names of the family that `export_name` calls.

    Raises:
        CheckpointError: no family of that name holds such a model.
    """
    named = [family for family in FAMILIES if family.export_name == export_name]
    family = next((family for family in named if family.holds(state)), None)
    if family is None or family.from_ours is None:
        names = " or ".join(family.name for family in named) or export_name
        kind = "one-stage" if family_of(state) is OURS else family_of(state).name
        raise CheckpointError(f"{kind} weights have no names in {names} files; choose another target")
    return family.from_ours(state)
