"""Every entry of every registry stands in a small detector that runs forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.modeling import registry
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.structures import BoxList
from maskrcnn_benchmark.utils.registry import Registry

FROZEN_NORM = ["MODEL.RESNETS.STEM_FUNC", "StemWithFixedBatchNorm"]
XCONV = ["MODEL.ROI_BOX_HEAD.CONV_HEAD_DIM", 8, "MODEL.ROI_BOX_HEAD.NUM_STACKED_CONVS", 1]
# What an entry needs beside its own key; "C4" and "LST" stand for the fixtures' groups of overrides.
NEEDS: dict[str, list[Any]] = {
    "FPNXconv1fcFeatureExtractor": XCONV,
    "FPN2MLPCosineFeatureExtractor": ["LST"],
    "FPNCosinePredictor": ["LST"],
    "MaskXRCNNC4Predictor": ["LST"],
    "ResNet50Conv5ROIFeatureExtractor": ["C4"],
    "FastRCNNPredictor": ["C4"],
    "MaskRCNNConv1x1Predictor": ["MODEL.ROI_MASK_HEAD.RESOLUTION", 14],
    "StemWithFixedBatchNorm": ["MODEL.RESNETS.TRANS_FUNC", "BasicBlockWithFixedBatchNorm"],
    "BasicBlockWithFixedBatchNorm": FROZEN_NORM,
    "BottleneckWithFixedBatchNorm": FROZEN_NORM,
}
REGISTRIES: list[Registry[Any]] = [value for value in vars(registry).values() if isinstance(value, Registry)]
ENTRIES = [(r.name, name) for r in REGISTRIES for name in sorted({*r.names()} - {"FBNet"})]


def _overrides(key: str, name: str, groups: dict[str, Any]) -> list[Any]:
    """KEY VALUE pairs of a small detector with entry `name` of the choice point `key`."""
    result: list[Any] = []
    needs = NEEDS.get(name, [])
    if key == "MODEL.BACKBONE.CONV_BODY" and name.endswith(("-C4", "-C5")):
        # a backbone without a neck: one level, proposals but no RoI heads
        stride, channels = (16, 32) if name.endswith("-C4") else (32, 64)
        needs = [
            *("MODEL.RPN_ONLY", True, "MODEL.MASK_ON", False, "MODEL.RPN.USE_FPN", False),
            *("MODEL.RPN.ANCHOR_STRIDE", (stride,), "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", channels),
        ]
    if key in ("MODEL.HEAD", "MODEL.NECK"):
        result = ["MODEL.BACKBONE.CONV_BODY", "R-10", "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 64]
    if key == "MODEL.HEAD" or name == "fpn_p6p7":
        needs = ["MODEL.MASK_ON", False, "MODEL.RETINANET.NUM_CONVS", 1]
        needs += ["MODEL.HEAD", "retinanet"] if key == "MODEL.NECK" else []
    if name == "none":
        return [*groups["C4"], key, name]
    for item in needs:
        result += groups.get(item, [item])
    return [*result, key, name]


@pytest.mark.parametrize(("key", "name"), ENTRIES, ids=lambda value: value.rpartition(".")[2])
def test_entry_trains(
    key: str,
    name: str,
    small_cfg: Callable[..., Any],
    lst_overrides: tuple[Any, ...],
    c4_overrides: tuple[Any, ...],
    batch: tuple[list[Tensor], list[BoxList]],
) -> None:
    overrides = _overrides(key, name, {"LST": lst_overrides, "C4": c4_overrides})
    torch.manual_seed(0)
    model = build_detection_model(small_cfg(*overrides)).train()
    images, targets = batch
    losses = model(images, targets)
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    model.eval()
    with torch.no_grad():
        assert len(model(images)) == len(images)
