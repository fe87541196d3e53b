"""SipMask of mmdetection 1.x (folder SipMask-mmdetection of the published repository), in both directions.

Our names of the head are those of SipMask-benchmark, whose files need no map. The norm of the alignment,
which models without group norm hold and do not use, is kept like all others.
"""

from __future__ import annotations

import re

from torch import Tensor

from maskrcnn_benchmark.checkpoint.families.base import State, WeightFamily
from maskrcnn_benchmark.checkpoint.families.mmdetection import (
    EPSILON,
    IMAGES,
    NameTable,
    backbone_and_neck,
    tower,
)
from maskrcnn_benchmark.utils.errors import CheckpointError

_MARKS = ("bbox_head.sip_mask_lat.weight", "neck.lateral_convs.0.conv.weight")
_OUR_MARK = "rpn.head.sip_mask_lat.weight"
_ALIGN_BIAS = "rpn.head.feat_align.conv_adaption.bias"
_SAME = ("scales", "feat_align", "sip_cof", "sip_mask_lat0", "sip_mask_lat", "mask_scoring")
_SCORING_CONVS = 6

TABLE = NameTable(
    backbone_and_neck(first_stage=2, levels=3, top=("p6", "p7"))
    | {
        "bbox_head.fcos_cls": "rpn.head.cls_logits",
        "bbox_head.fcos_reg": "rpn.head.bbox_pred",
        "bbox_head.fcos_centerness": "rpn.head.centerness",
    }
    | {f"bbox_head.{name}": f"rpn.head.{name}" for name in _SAME}
    | {f"bbox_head.convs_scoring.{i}.conv": f"rpn.head.convs_scoring.{i}" for i in range(_SCORING_CONVS)}
    | tower("bbox_head.cls_convs", "rpn.head.cls_tower")
    | tower("bbox_head.reg_convs", "rpn.head.bbox_tower")
)


def export_sipmask(state: State) -> dict[str, Tensor]:
    """Tensors of our SipMask under mmdetection's names; scales (1,) become (), counters of batches are 0.

    Raises:
        CheckpointError: the tensors are not those of a SipMask, or of a variant that mmdetection's models
            cannot hold (biases beside group norm, deformable towers).
    """
    foreign = TABLE.unknown_to_theirs(state)
    if _OUR_MARK not in state or foreign:
        what = f": {', '.join(foreign[:3])}" if foreign else ""
        raise CheckpointError(f"these are no weights of a SipMask{what}; mmdetection's names are for it")
    extra = _extra_parameters(state)
    if extra:
        raise CheckpointError(
            f"mmdetection's models have no {', '.join(extra[:3])}: train with MODEL.SIPMASK.TOWER_BIAS False "
            "(True without group norm), ALIGN_BIAS False and USE_DCN_IN_TOWER False for files that it reads"
        )
    return TABLE.to_theirs(state)


def _extra_parameters(state: State) -> list[str]:
    """Parameters of our SipMask that no published variant has."""
    pattern = re.compile(r"rpn\.head\.(?:cls|bbox)_tower\.(\d+)\.(.*)")
    parameters = {name: match for name in state if (match := pattern.match(name))}
    normed = any(int(match[1]) % 3 == 1 for match in parameters.values())
    extra = [n for n, m in parameters.items() if m[2] not in ("weight", "bias")]
    extra += [n for n, m in parameters.items() if normed and m[2] == "bias" and int(m[1]) % 3 == 0]
    return extra + ([_ALIGN_BIAS] if _ALIGN_BIAS in state else [])


MMDETECTION_SIPMASK = WeightFamily(
    name="mmdetection SipMask",
    matches=lambda state, path: all(name in state for name in _MARKS),
    to_ours=lambda state, conv_body: TABLE.to_ours(state),
    from_ours=export_sipmask,
    export_name="mmdetection",
    holds=lambda state: _OUR_MARK in state,
    expected_config=IMAGES,
    frozen_bn_eps=EPSILON,
    example_configs="configs/sipmask/*_caffe_fpn_*",
)
