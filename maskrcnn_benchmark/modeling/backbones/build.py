"""Backbones by name: MODEL.BACKBONE.CONV_BODY -> nn.Sequential(body[, fpn])."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from maskrcnn_benchmark.config.classes import one_stage_model
from maskrcnn_benchmark.modeling.backbones.blocks import Deformable
from maskrcnn_benchmark.modeling.backbones.resnet import ResNet, StageSpec
from maskrcnn_benchmark.modeling.backbones.torchvision_backbones import PREFIX, TorchvisionBody
from maskrcnn_benchmark.modeling.necks.fpn import FPN, LastLevelP6P7
from maskrcnn_benchmark.modeling.norm import group_norm_from_cfg
from maskrcnn_benchmark.modeling.registry import BACKBONES, STEMS, TRANSFORMATIONS
from maskrcnn_benchmark.structures.features import FeatureSpec, FeatureSpecs, common_channels
from maskrcnn_benchmark.utils.errors import ConfigError

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


class Backbone(nn.Sequential):
    """Sequential of named parts. Call: images (B, 3, H, W) -> list of feature maps, finest first.

    `feature_specs`: channels and stride per returned map, as the last part states them.
    """

    def __init__(self, parts: OrderedDict[str, nn.Module]) -> None:
        super().__init__(parts)
        last: Any = next(reversed(parts.values()))
        self.feature_specs: tuple[FeatureSpec, ...] = tuple(last.feature_specs)

    @property
    def out_channels(self) -> int:
        """Channels of every returned map; ValueError when they differ."""
        return common_channels(self.feature_specs)


def _deformable(cfg: CfgNode) -> list[Deformable | None]:
    """How the 3x3 convolutions of layer1..layer4 are deformed."""
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


def _build_plain(cfg: CfgNode, depth: str, last: int) -> Backbone:
    body = _resnet(cfg, depth, last, (last,))
    expected = cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS
    channels = common_channels(body.feature_specs)
    if channels != expected:
        raise ConfigError(
            f"MODEL.RESNETS.BACKBONE_OUT_CHANNELS is {expected}, but {cfg.MODEL.BACKBONE.CONV_BODY} "
            f"gives {channels} channels (RES2_OUT_CHANNELS {cfg.MODEL.RESNETS.RES2_OUT_CHANNELS})"
        )
    return Backbone(OrderedDict(body=body))


def _build_fpn(cfg: CfgNode, depth: str) -> Backbone:
    body = _resnet(cfg, depth, 4, (1, 2, 3, 4))
    return _with_fpn(cfg, body, body.feature_specs)


def _with_fpn(cfg: CfgNode, body: nn.Module, features: FeatureSpecs) -> Backbone:
    """P2..P6, or for one-stage models P3..P7, whose last two levels are convolutions of C5 or P5."""
    channels = cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS
    norm = group_norm_from_cfg(cfg) if cfg.MODEL.FPN.USE_GN else None
    build = partial(FPN, out_channels=channels, norm=norm, relu=cfg.MODEL.FPN.USE_RELU)
    if one_stage_model(cfg) is not None:
        use_c5 = cfg.MODEL.RETINANET.USE_C5
        top = LastLevelP6P7(features[-1].channels if use_c5 else channels, channels, from_body=use_c5)
        fpn = build(features[-3:], extra_pool=False, top_blocks=top)
    else:
        fpn = build(features, extra_pool=True)
    return Backbone(OrderedDict(body=body, fpn=fpn))


def _build_retinanet_fpn(cfg: CfgNode, depth: str) -> Backbone:
    body = _resnet(cfg, depth, 4, (2, 3, 4))
    return _with_fpn(cfg, body, body.feature_specs)


for _depth in ("R-50", "R-101"):
    BACKBONES.register(f"{_depth}-C4")(partial(_build_plain, depth=_depth, last=3))
    BACKBONES.register(f"{_depth}-C5")(partial(_build_plain, depth=_depth, last=4))
for _depth in BLOCKS:
    BACKBONES.register(f"{_depth}-FPN")(partial(_build_fpn, depth=_depth))
    BACKBONES.register(f"{_depth}-FPN-RETINANET")(partial(_build_retinanet_fpn, depth=_depth))


@BACKBONES.register("FBNet")
def _refuse_fbnet(cfg: CfgNode) -> Backbone:
    raise ConfigError(
        "MODEL.BACKBONE.CONV_BODY FBNet: the FBNet models are not provided; a mobile body with a pyramid is "
        f"{PREFIX}mobilenet_v3_large (see configs/torchvision)"
    )


def _build_torchvision(cfg: CfgNode, name: str) -> Backbone:
    node = cfg.MODEL.BACKBONE
    if any(_deformable(cfg)):
        raise ConfigError(
            f"MODEL.RESNETS.STAGE_WITH_DCN: the body {PREFIX}{name} cannot be deformable; "
            "set all four to False"
        )
    train_norm = node.NORM == "train"
    body = TorchvisionBody(name, freeze_at=node.FREEZE_CONV_BODY_AT, train_norm=train_norm)
    return _with_fpn(cfg, body, body.feature_specs)


def build_backbone(cfg: CfgNode) -> Backbone:
    """Body (and neck) named by MODEL.BACKBONE.CONV_BODY; ConfigError lists close names."""
    name = cfg.MODEL.BACKBONE.CONV_BODY
    if name.startswith(PREFIX):
        return _build_torchvision(cfg, name.removeprefix(PREFIX))
    return BACKBONES.get(name)(cfg)
