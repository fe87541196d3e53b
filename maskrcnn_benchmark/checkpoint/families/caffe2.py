"""Weight files of Caffe2 and Detectron (`.pkl`): their blob names become ours."""

from __future__ import annotations

import re

from torch import Tensor

from maskrcnn_benchmark.checkpoint.families.base import CAFFE2_IMAGES, State, WeightFamily
from maskrcnn_benchmark.utils.errors import CheckpointError

# Index of the last block of res2..res5, which Detectron puts into the names of FPN blobs.
LAST_BLOCKS = {"R-50": (2, 3, 5, 2), "R-101": (2, 3, 22, 2), "R-152": (2, 7, 35, 2)}
_PARTS = {"w": "weight", "b": "bias", "s": "weight"}
_BRANCHES = {"2a": "1", "2b": "2", "2c": "3"}


def depth_of(conv_body: str) -> str:
    """Depth in LAST_BLOCKS of a backbone name: "R-50-FPN" gives "R-50"."""
    return re.sub(r"-(C4|C5|FPN)(-RETINANET)?$", "", conv_body)


def rename_blobs(names: list[str], conv_body: str) -> dict[str, str]:
    """Map Caffe2 blob names to parameter names (c2_model_loading.py of maskrcnn-benchmark).

    The results are the tails of the model's names ("layer1.0.conv1.weight"), for the suffix match.

    Args:
        names: blob names without `_momentum` ones.
        conv_body: MODEL.BACKBONE.CONV_BODY, or a depth such as "R-50".

    Raises:
        CheckpointError: the file has FPN blobs and the backbone is none that Detectron published.
    """
    depth = depth_of(conv_body)
    result = {}
    for name in names:
        if name.startswith("fpn_") and depth not in LAST_BLOCKS:
            raise CheckpointError(
                f"blob {name}: FPN blobs are known for {', '.join(LAST_BLOCKS)}, not for {conv_body}"
            )
        result[name] = _rename(name, LAST_BLOCKS.get(depth, ()))
    return result


def _rename(name: str, last_blocks: tuple[int, ...]) -> str:
    stem, _, part = name.rpartition("_")
    if part not in _PARTS:
        return name
    tail = _PARTS[part]
    if norm := re.fullmatch(r"(?:res_)?conv1(_bn|_gn)?", stem):
        return f"bn1.{tail}" if norm[1] else f"conv1.{tail}"
    if block := re.fullmatch(r"res([2-5])_(\d+)_branch(1|2[abc])(_bn|_gn)?", stem):
        layer = f"layer{int(block[1]) - 1}.{block[2]}"
        if block[3] == "1":
            return f"{layer}.downsample.{1 if block[4] else 0}.{tail}"
        return f"{layer}.{'bn' if block[4] else 'conv'}{_BRANCHES[block[3]]}.{tail}"
    if fpn := re.fullmatch(r"fpn_(inner_)?res([2-5])_(\d+)_sum(_lateral)?(_gn)?", stem):
        level = int(fpn[2]) - 2
        if int(fpn[3]) == last_blocks[level]:
            kind = "inner" if fpn[1] else "layer"
            inner = ".1" if fpn[5] else ""
            return f"fpn_{kind}{level + 1}{inner}.{tail}"
    if rpn := re.fullmatch(r"(conv_rpn|rpn_cls_logits|rpn_bbox_pred)(_fpn2)?", stem):
        return f"rpn.head.{'conv' if rpn[1] == 'conv_rpn' else rpn[1][4:]}.{tail}"
    if mask := re.fullmatch(r"_?(?:\[mask\]_)?(mask_)?fcn(\d+)", stem):
        return f"mask_fcn{mask[2]}.{tail}"
    return f"{'fc1000' if stem == 'pred' else stem}.{tail}"


def _import(state: State, conv_body: str) -> dict[str, Tensor]:
    names = rename_blobs(list(state), conv_body)
    return {names[blob]: tensor for blob, tensor in state.items()}


_STRIDE = "MODEL.RESNETS.STRIDE_IN_1X1"
CAFFE2 = WeightFamily(
    name="Caffe2 / Detectron",
    matches=lambda state, path: path.endswith(".pkl"),
    to_ours=_import,
    expected_config=CAFFE2_IMAGES,
    expected_by_file={
        "R-50.pkl": {_STRIDE: True},
        "R-101.pkl": {_STRIDE: True},
        "R-50-GN.pkl": {_STRIDE: False},
        "R-101-GN.pkl": {_STRIDE: False},
        "X-101-32x8d.pkl": {_STRIDE: False},
        "X-101-64x4d.pkl": {_STRIDE: False},
    },
)
