"""Backbones by name: MODEL.BACKBONE.CONV_BODY, without the ending that names a neck."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from maskrcnn_benchmark.config.compat import CONV_BODY_ENDINGS, NO_NECK, split_conv_body
from maskrcnn_benchmark.modeling.backbones.blocks import Deformable
from maskrcnn_benchmark.modeling.backbones.resnet import ResNet, StageSpec
from maskrcnn_benchmark.modeling.backbones.torchvision_backbones import PREFIX, TorchvisionBackbone
from maskrcnn_benchmark.modeling.registry import BACKBONES, STEMS, TRANSFORMATIONS
from maskrcnn_benchmark.structures.features import common_channels
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.registry import close_matches

if TYPE_CHECKING:
    from yacs.config import CfgNode

BLOCKS = {
    "R-10": (1, 1, 1, 1),
    "R-18": (2, 2, 2, 2),
    "R-50": (3, 4, 6, 3),
    "R-101": (3, 4, 23, 3),
    "R-152": (3, 8, 36, 3),
}
"""Blocks per stage. R-10 and R-18 are meant for the BasicBlock transformations."""


def _deformable(cfg: CfgNode) -> list[Deformable | None]:
    """Return how the 3x3 convolutions of layer1..layer4 are deformed, None where they are not."""
    node = cfg.MODEL.RESNETS
    flags = tuple(node.STAGE_WITH_DCN)
    if len(flags) != 4:
        raise ConfigError(
            f"MODEL.RESNETS.STAGE_WITH_DCN must hold four flags, for layer1..layer4, got {flags}"
        )
    if node.DEFORMABLE_GROUPS < 1:
        raise ConfigError(f"MODEL.RESNETS.DEFORMABLE_GROUPS must be at least 1, got {node.DEFORMABLE_GROUPS}")
    if node.DCN_INTERVAL < 1:
        raise ConfigError(f"MODEL.RESNETS.DCN_INTERVAL must be at least 1, got {node.DCN_INTERVAL}")
    kind = Deformable(node.DEFORMABLE_GROUPS, node.WITH_MODULATED_DCN, node.DCN_INTERVAL)
    return [kind if flag else None for flag in flags]


def _resnet(cfg: CfgNode, depth: str, last: int, outputs: tuple[int, ...]) -> ResNet:
    node = cfg.MODEL.RESNETS
    deformable = _deformable(cfg)
    stages = [StageSpec(i, BLOCKS[depth][i - 1], i in outputs, deformable[i - 1]) for i in range(1, last + 1)]
    return ResNet(
        STEMS.get(node.STEM_FUNC)(cfg),
        TRANSFORMATIONS.get(node.TRANS_FUNC)(cfg),
        stages,
        stem_out_channels=node.STEM_OUT_CHANNELS,
        res2_out_channels=node.RES2_OUT_CHANNELS,
        res2_width=node.NUM_GROUPS * node.WIDTH_PER_GROUP,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT,
    )


def _build_resnet(cfg: CfgNode, depth: str) -> ResNet:
    """C2..C5."""
    return _resnet(cfg, depth, 4, (1, 2, 3, 4))


def _build_last_stage(cfg: CfgNode, depth: str, last: int) -> ResNet:
    """The map of one stage alone, for models without a neck: C4 or C5."""
    backbone = _resnet(cfg, depth, last, (last,))
    expected = cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS
    channels = common_channels(backbone.feature_specs)
    if channels != expected:
        raise ConfigError(
            f"MODEL.RESNETS.BACKBONE_OUT_CHANNELS is {expected}, but {cfg.MODEL.BACKBONE.CONV_BODY} "
            f"gives {channels} channels (RES2_OUT_CHANNELS {cfg.MODEL.RESNETS.RES2_OUT_CHANNELS})"
        )
    return backbone


for _depth in BLOCKS:
    BACKBONES.register(_depth)(partial(_build_resnet, depth=_depth))
for _depth in ("R-50", "R-101"):
    BACKBONES.register(f"{_depth}-C4")(partial(_build_last_stage, depth=_depth, last=3))
    BACKBONES.register(f"{_depth}-C5")(partial(_build_last_stage, depth=_depth, last=4))


@BACKBONES.register("FBNet")
def _refuse_fbnet(cfg: CfgNode) -> nn.Module:
    raise ConfigError(
        "MODEL.BACKBONE.CONV_BODY FBNet: the FBNet models are not provided; a mobile backbone with an FPN is "
        f"{PREFIX}mobilenet_v3_large (see configs/torchvision)"
    )


def _build_torchvision(cfg: CfgNode, name: str) -> TorchvisionBackbone:
    node = cfg.MODEL.BACKBONE
    if any(_deformable(cfg)):
        raise ConfigError(
            f"MODEL.RESNETS.STAGE_WITH_DCN: the backbone {PREFIX}{name} cannot be deformable; "
            "set all four to False"
        )
    train_norm = node.NORM == "train"
    return TorchvisionBackbone(name, freeze_at=node.FREEZE_CONV_BODY_AT, train_norm=train_norm)


def build_backbone(cfg: CfgNode) -> nn.Module:
    """Build the backbone that MODEL.BACKBONE.CONV_BODY names, without its neck.

    Call: images (B, 3, H, W) -> list of feature maps, finest first; `feature_specs` states their channels and
    strides. Raises ConfigError, which lists close names.
    """
    name, _ = split_conv_body(cfg.MODEL.BACKBONE.CONV_BODY)
    if name.startswith(PREFIX):
        return _build_torchvision(cfg, name.removeprefix(PREFIX))
    if name not in BACKBONES:
        endings = ["", *(ending for ending, neck in CONV_BODY_ENDINGS.items() if neck != NO_NECK)]
        known = [*BACKBONES.names(), *(f"{depth}{ending}" for depth in BLOCKS for ending in endings)]
        near = close_matches(cfg.MODEL.BACKBONE.CONV_BODY, known)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}, {PREFIX}<name>"
        raise ConfigError(f"unknown MODEL.BACKBONE.CONV_BODY {cfg.MODEL.BACKBONE.CONV_BODY!r}; {hint}")
    backbone: nn.Module = BACKBONES.get(name)(cfg)
    return backbone
