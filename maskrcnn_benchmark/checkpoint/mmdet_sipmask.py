"""SipMask of mmdetection 1.x: its names and ours, in both directions (sipmask spec 10).

Ours are those of SipMask-benchmark, whose files need no map. Beside the names, factors of the levels
have no dimension there, and batch norm counts its batches and adds EPSILON to the variance (variances are not
changed: MODEL.RESNETS.FROZEN_BN_EPS says it). The norm of the alignment, which models without group norm hold
and do not use, is kept like all others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from maskrcnn_benchmark.utils.errors import CheckpointError

EPSILON = 1e-5
"""parity: what batch norm of these models adds to the variance."""

_MARKS = ("bbox_head.sip_mask_lat.weight", "neck.lateral_convs.0.conv.weight")
_COUNTER, _VARIANCE = "num_batches_tracked", "running_var"
_DEPTH = 16  # most convolutions of a tower
_ALIGN_BIAS = "rpn.head.feat_align.conv_adaption.bias"
_SAME = ("scales", "feat_align", "sip_cof", "sip_mask_lat0", "sip_mask_lat", "mask_scoring")


def _table() -> dict[str, str]:
    """Their modules -> ours, for all names but those inside of the body's blocks."""
    table = {
        "backbone.conv1": "backbone.body.stem.conv1",
        "backbone.bn1": "backbone.body.stem.bn1",
        "neck.fpn_convs.3.conv": "backbone.fpn.top_blocks.p6",
        "neck.fpn_convs.4.conv": "backbone.fpn.top_blocks.p7",
        "bbox_head.fcos_cls": "rpn.head.cls_logits",
        "bbox_head.fcos_reg": "rpn.head.bbox_pred",
        "bbox_head.fcos_centerness": "rpn.head.centerness",
    }
    table |= {f"bbox_head.{name}": f"rpn.head.{name}" for name in _SAME}
    table |= {f"backbone.layer{i}": f"backbone.body.layer{i}" for i in range(1, 5)}
    table |= {f"neck.lateral_convs.{i}.conv": f"backbone.fpn.fpn_inner{i + 2}" for i in range(3)}
    table |= {f"neck.fpn_convs.{i}.conv": f"backbone.fpn.fpn_layer{i + 2}" for i in range(3)}
    table |= {f"bbox_head.convs_scoring.{i}.conv": f"rpn.head.convs_scoring.{i}" for i in range(6)}
    for theirs, ours in (("cls_convs", "cls_tower"), ("reg_convs", "bbox_tower")):
        for i in range(_DEPTH):  # a place for the ReLU, and one for the norm also where there is none
            table[f"bbox_head.{theirs}.{i}.conv"] = f"rpn.head.{ours}.{3 * i}"
            table[f"bbox_head.{theirs}.{i}.gn"] = f"rpn.head.{ours}.{3 * i + 1}"
    return table


_TO_OURS = _table()
_TO_THEIRS = {ours: theirs for theirs, ours in _TO_OURS.items()}


def _renamed(name: str, table: Mapping[str, str]) -> str:
    """The name with the module that it begins with replaced; other names stay."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        module = ".".join(parts[:end])
        if module in table:
            return ".".join((table[module], *parts[end:]))
    return name


def is_mmdet_sipmask(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the names of mmdetection's SipMask."""
    return all(name in state for name in _MARKS)


def import_mmdet_sipmask(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Its tensors under our names, without counters of batches."""
    # Offsets of deformable convolutions; older files call them conv2_offset.
    places = {name: re.sub(r"(conv2\.conv_offset|conv2_offset)\.", "conv2.offset.", name) for name in state}
    deformed = {
        place.removesuffix(".offset.weight")
        for place in places.values()
        if place.endswith("conv2.offset.weight")
    }
    result = {}
    for name, tensor in state.items():
        if name.endswith(_COUNTER):
            continue
        place, module = places[name], name.removesuffix(".weight")
        if module != name and module in deformed:
            place = f"{module}.conv.weight"
        own = _renamed(place, _TO_OURS)
        result[own] = tensor.reshape(1) if own.endswith(".scale") and tensor.dim() == 0 else tensor
    return result


def export_mmdet_sipmask(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse; counters of batches, which do not run in these models, are 0.

    Raises:
        CheckpointError: the tensors are not those of a SipMask, or of a variant that mmdetection's
            models cannot hold (biases beside group norm, deformable towers).
    """
    _refuse_foreign(state)
    result = {}
    for name, tensor in state.items():
        place = name.replace(".conv2.offset.", ".conv2.conv_offset.").replace(
            ".conv2.conv.weight", ".conv2.weight"
        )
        theirs = _renamed(place, _TO_THEIRS)
        result[theirs] = tensor.reshape(()) if theirs.endswith(".scale") else tensor
        if theirs.endswith(_VARIANCE):
            counter = theirs.removesuffix(_VARIANCE) + _COUNTER
            result[counter] = torch.zeros((), dtype=torch.int64, device=tensor.device)
    return result


def _refuse_foreign(state: Mapping[str, Tensor]) -> None:
    """CheckpointError for what has no counterpart in mmdetection's SipMask."""
    foreign = [name for name in state if _renamed(name, _TO_THEIRS) == name]
    if "rpn.head.sip_mask_lat.weight" not in state or foreign:
        what = f": {', '.join(foreign[:3])}" if foreign else ""
        raise CheckpointError(f"these are no weights of a SipMask{what}; mmdetection's names are for it")
    towers = re.compile(r"rpn\.head\.(?:cls|bbox)_tower\.(\d+)\.(.*)")
    found = {name: match for name in state if (match := towers.match(name))}
    normed = any(int(match[1]) % 3 == 1 for match in found.values())
    extra = [n for n, m in found.items() if m[2] not in ("weight", "bias")]
    extra += [n for n, m in found.items() if normed and m[2] == "bias" and int(m[1]) % 3 == 0]
    extra += [_ALIGN_BIAS] if _ALIGN_BIAS in state else []
    if extra:
        raise CheckpointError(
            f"mmdetection's models have no {', '.join(extra[:3])}: train with MODEL.SIPMASK.TOWER_BIAS False "
            "(True without group norm), ALIGN_BIAS False and USE_DCN_IN_TOWER False for files that it reads"
        )
