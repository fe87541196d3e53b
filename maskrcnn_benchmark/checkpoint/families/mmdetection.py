"""What all models of mmdetection 1.x have in common: backbone, FPN, towers, and how names are replaced.

A family adds the table of its head. Beside the names, scales of the levels have shape () there, and batch
norm counts its batches and adds EPSILON to the variance (variances are not changed:
MODEL.RESNETS.FROZEN_BN_EPS says it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.checkpoint.families.base import CAFFE2_IMAGES, COUNTER, VARIANCE, State

EPSILON = 1e-5
"""parity: what batch norm of these models adds to the variance."""

IMAGES: dict[str, Any] = CAFFE2_IMAGES | {
    "INPUT.INTERPOLATION": "opencv",
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.RESNETS.FROZEN_BN_EPS": EPSILON,
}
"""Config of the models that start from Caffe2's ResNets (style="caffe")."""

_STAGES = range(1, 5)
_DEPTH = 16  # convolutions of the deepest tower


def backbone_and_neck(*, first_stage: int, levels: int, top: Sequence[str] = ()) -> dict[str, str]:
    """Modules of ResNet and FPN: theirs -> ours.

    Args:
        first_stage: stage of the ResNet, from 1, whose map the FPN reads first.
        levels: maps that the FPN reads.
        top: our names of the convolutions that make further maps.
    """
    table = {f"backbone.{name}": f"backbone.body.stem.{name}" for name in ("conv1", "bn1")}
    table |= {f"backbone.layer{i}": f"backbone.body.layer{i}" for i in _STAGES}
    for i in range(levels):
        table[f"neck.lateral_convs.{i}.conv"] = f"backbone.fpn.fpn_inner{first_stage + i}"
        table[f"neck.fpn_convs.{i}.conv"] = f"backbone.fpn.fpn_layer{first_stage + i}"
    for i, name in enumerate(top, start=levels):
        table[f"neck.fpn_convs.{i}.conv"] = f"backbone.fpn.top_blocks.{name}"
    return table


def tower(theirs: str, ours: str) -> dict[str, str]:
    """Modules of a stack of convolution, group norm and ReLU.

    Ours is a sequence with an index for the ReLU, and one for the norm also where there is none.
    """
    table = {}
    for i in range(_DEPTH):
        table[f"{theirs}.{i}.conv"] = f"{ours}.{3 * i}"
        table[f"{theirs}.{i}.gn"] = f"{ours}.{3 * i + 1}"
    return table


class NameTable:
    """Modules of one model, theirs -> ours, applied to whole state dicts.

    Deformable convolutions in the blocks (`conv2` with `conv2.conv_offset`, in older files `conv2_offset`)
    become `conv2.conv` and `conv2.offset`.
    """

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._to_ours = dict(modules)
        self._to_theirs = {ours: theirs for theirs, ours in modules.items()}

    def to_ours(self, state: State) -> dict[str, Tensor]:
        """Tensors under our names without counters of batches; scales () become (1,)."""
        offsets = r"(conv2\.conv_offset|conv2_offset)\."
        renamed = {name: re.sub(offsets, "conv2.offset.", name) for name in state}
        deformed = {
            name.removesuffix(".offset.weight")
            for name in renamed.values()
            if name.endswith("conv2.offset.weight")
        }
        result = {}
        for name, tensor in state.items():
            if name.endswith(COUNTER):
                continue
            module = name.removesuffix(".weight")
            plain = f"{module}.conv.weight" if module != name and module in deformed else renamed[name]
            ours = _replace_module(plain, self._to_ours)
            result[ours] = tensor.reshape(1) if ours.endswith(".scale") and tensor.dim() == 0 else tensor
        return result

    def to_theirs(self, state: State) -> dict[str, Tensor]:
        """The inverse: scales (1,) become (); counters of batches, which these models do not use, are 0."""
        result = {}
        for name, tensor in state.items():
            plain = name.replace(".conv2.offset.", ".conv2.conv_offset.")
            theirs = _replace_module(plain.replace(".conv2.conv.weight", ".conv2.weight"), self._to_theirs)
            single = theirs.endswith(".scale") and tensor.numel() == 1
            result[theirs] = tensor.reshape(()) if single else tensor
            if theirs.endswith(VARIANCE):
                counter = theirs.removesuffix(VARIANCE) + COUNTER
                result[counter] = torch.zeros((), dtype=torch.int64, device=tensor.device)
        return result

    def unknown_to_theirs(self, state: State) -> list[str]:
        """Names of ours that the table does not know; tensors of any shape (...,)."""
        return [name for name in state if _replace_module(name, self._to_theirs) == name]


def _replace_module(name: str, table: Mapping[str, str]) -> str:
    """The name with the module that it begins with replaced; other names stay."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        module = ".".join(parts[:end])
        if module in table:
            return ".".join((table[module], *parts[end:]))
    return name
