"""Normalisation layers as factories `channels -> module`, so that constructors read no config."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import nn

from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.utils.errors import ConfigError

if TYPE_CHECKING:
    from yacs.config import CfgNode

NormFactory = Callable[[int], nn.Module]


def group_count(channels: int, num_groups: int, dim_per_group: int) -> int:
    """Return the number of groups of a group norm over `channels`.

    Exactly one of `num_groups` and `dim_per_group` is positive (the other is -1), and it divides `channels`.
    Raises ConfigError naming the key otherwise.
    """
    if (num_groups > 0) == (dim_per_group > 0):
        raise ConfigError(
            f"MODEL.GROUP_NORM: exactly one of NUM_GROUPS ({num_groups}) and DIM_PER_GP ({dim_per_group}) "
            "must be positive; set the other to -1"
        )
    unit = num_groups if num_groups > 0 else dim_per_group
    if channels % unit:
        key = "NUM_GROUPS" if num_groups > 0 else "DIM_PER_GP"
        raise ConfigError(f"MODEL.GROUP_NORM.{key} {unit} does not divide a layer of {channels} channels")
    return num_groups if num_groups > 0 else channels // dim_per_group


def group_norm_factory(num_groups: int, dim_per_group: int, eps: float) -> NormFactory:
    """Return a factory of affine group norms for feature maps (N, C, H, W) or vectors (N, C)."""

    def build(channels: int) -> nn.Module:
        return nn.GroupNorm(group_count(channels, num_groups, dim_per_group), channels, eps=eps)

    return build


def group_norm_from_cfg(cfg: CfgNode) -> NormFactory:
    """Build the group norm factory from MODEL.GROUP_NORM."""
    node = cfg.MODEL.GROUP_NORM
    return group_norm_factory(node.NUM_GROUPS, node.DIM_PER_GP, node.EPSILON)


def frozen_norm_from_cfg(cfg: CfgNode) -> NormFactory:
    """Build a factory of frozen batch norms; MODEL.RESNETS.FROZEN_BN_EPS is added to the variance."""
    eps = cfg.MODEL.RESNETS.FROZEN_BN_EPS

    def build(channels: int) -> nn.Module:
        return FrozenBatchNorm2d(channels, eps=eps)

    return build
