"""Anchors of RetinaNet and their targets (Lin et al. 2017, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.anchors import AnchorGenerator, generate_cell_anchors
from maskrcnn_benchmark.modeling.heads.common import flatten_map
from maskrcnn_benchmark.modeling.matcher import BETWEEN_THRESHOLDS, Matcher
from maskrcnn_benchmark.structures.boxlist import BoxList

if TYPE_CHECKING:
    from yacs.config import CfgNode

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""parity: factors of the regression targets."""


@dataclass(frozen=True)
class RetinaNetOutputs:
    """Per level: logits (B, A*C, H, W) and deltas (B, A*4, H, W), channel = anchor * n + part."""

    logits: list[Tensor]
    deltas: list[Tensor]

    def per_anchor(self) -> tuple[list[Tensor], list[Tensor]]:
        """Per level logits (B, H*W*A, C) and deltas (B, H*W*A, 4): views of channels-last maps."""
        num_anchors = self.deltas[0].shape[1] // 4
        classes = self.logits[0].shape[1] // num_anchors
        logits = [flatten_map(level, classes) for level in self.logits]
        return logits, [flatten_map(level, 4) for level in self.deltas]


def build_anchors(node: CfgNode) -> AnchorGenerator:
    """Build from MODEL.RETINANET: a level has its size times OCTAVE^(i / SCALES_PER_OCTAVE), i = 0, 1, ..."""
    steps = [node.OCTAVE ** (i / node.SCALES_PER_OCTAVE) for i in range(node.SCALES_PER_OCTAVE)]
    cells = [
        generate_cell_anchors(stride, [size * step for step in steps], node.ASPECT_RATIOS)
        for stride, size in zip(node.ANCHOR_STRIDES, node.ANCHOR_SIZES, strict=True)
    ]
    return AnchorGenerator(cells, node.ANCHOR_STRIDES, node.STRADDLE_THRESH)


def assign_anchors(matcher: Matcher, anchors: Tensor, target: BoxList) -> tuple[Tensor, Tensor]:
    """Labels (N,) and matched object (N,), both int64, of xyxy anchors (N, 4) of one image.

    Labels: 1..C of the object, 0 background, -1 between the thresholds. The object is -1 where there is none;
    an image without objects is all background.
    """
    matches = matcher.match(target.xyxy().to(anchors), anchors)
    if len(target) == 0:
        return torch.zeros_like(matches), matches
    labels = target.get_field("labels").to(matches)[matches.clamp(min=0)]
    labels = torch.where(matches >= 0, labels, torch.where(matches == BETWEEN_THRESHOLDS, -1, 0))
    return labels, matches.clamp(min=-1)
