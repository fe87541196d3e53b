"""Backbones by name: MODEL.BACKBONE.CONV_BODY -> nn.Sequential(body[, fpn])."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from maskrcnn_benchmark.modeling.backbones.resnet import ResNet, StageSpec
from maskrcnn_benchmark.modeling.backbones.torchvision_body import PREFIX, TorchvisionBody
from maskrcnn_benchmark.modeling.necks.fpn import FPN
from maskrcnn_benchmark.modeling.norm import group_norm_from_cfg
from maskrcnn_benchmark.modeling.registry import BACKBONES, STEMS, TRANSFORMATIONS
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
    """Sequential of named parts with `out_channels`: channels of every returned map.

    Call: images (B,3,H,W) -> list of feature maps, finest first.
    """

    def __init__(self, parts: OrderedDict[str, nn.Module], out_channels: int) -> None:
        super().__init__(parts)
        self.out_channels = out_channels


def _resnet(cfg: CfgNode, depth: str, last: int, outputs: tuple[int, ...]) -> ResNet:
    node = cfg.MODEL.RESNETS
    if any(node.STAGE_WITH_DCN):
        raise ConfigError(
            "MODEL.RESNETS.STAGE_WITH_DCN: deformable convolution is not available; set all four to False"
        )
    stages = [StageSpec(i, BLOCKS[depth][i - 1], i in outputs) for i in range(1, last + 1)]
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
    if body.out_channels != [expected]:
        raise ConfigError(
            f"MODEL.RESNETS.BACKBONE_OUT_CHANNELS is {expected}, but {cfg.MODEL.BACKBONE.CONV_BODY} "
            f"gives {body.out_channels[0]} channels (RES2_OUT_CHANNELS {cfg.MODEL.RESNETS.RES2_OUT_CHANNELS})"
        )
    return Backbone(OrderedDict(body=body), expected)


def _build_fpn(cfg: CfgNode, depth: str) -> Backbone:
    body = _resnet(cfg, depth, 4, (1, 2, 3, 4))
    return _with_fpn(cfg, body, body.out_channels)


def _with_fpn(cfg: CfgNode, body: nn.Module, in_channels: Sequence[int]) -> Backbone:
    channels = cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS
    norm = group_norm_from_cfg(cfg) if cfg.MODEL.FPN.USE_GN else None
    fpn = FPN(in_channels, channels, norm=norm, relu=cfg.MODEL.FPN.USE_RELU, extra_pool=True)
    return Backbone(OrderedDict(body=body, fpn=fpn), channels)


for _depth in ("R-50", "R-101"):
    BACKBONES.register(f"{_depth}-C4")(partial(_build_plain, depth=_depth, last=3))
    BACKBONES.register(f"{_depth}-C5")(partial(_build_plain, depth=_depth, last=4))
for _depth in BLOCKS:
    BACKBONES.register(f"{_depth}-FPN")(partial(_build_fpn, depth=_depth))


@BACKBONES.register("FBNet")
def _refuse_fbnet(cfg: CfgNode) -> Backbone:
    raise ConfigError(
        "MODEL.BACKBONE.CONV_BODY FBNet: the FBNet models are not provided; a mobile body with a pyramid is "
        f"{PREFIX}mobilenet_v3_large (see configs/torchvision)"
    )


def _build_torchvision(cfg: CfgNode, name: str) -> Backbone:
    node = cfg.MODEL.BACKBONE
    train_norm = node.NORM == "train"
    body = TorchvisionBody(name, freeze_at=node.FREEZE_CONV_BODY_AT, train_norm=train_norm)
    return _with_fpn(cfg, body, body.out_channels)


def build_backbone(cfg: CfgNode) -> Backbone:
    """Body (and neck) named by MODEL.BACKBONE.CONV_BODY; ConfigError lists close names."""
    name = cfg.MODEL.BACKBONE.CONV_BODY
    if name.startswith(PREFIX):
        return _build_torchvision(cfg, name.removeprefix(PREFIX))
    return BACKBONES.get(name)(cfg)
