"""Which anchors RetinaNet trains on which object (core spec 12)."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.matcher import BETWEEN, Matcher
from maskrcnn_benchmark.structures.boxlist import BoxList


def assign(matcher: Matcher, anchors: Tensor, target: BoxList) -> tuple[Tensor, Tensor]:
    """Labels (N,) and matched object (N,), both int64, of xyxy anchors (N,4) of one image.

    Labels: 1..C of the object, 0 background, -1 between the thresholds. The object is -1 where there is none;
    an image without objects is all background.
    """
    matches = matcher.match(target.xyxy().to(anchors), anchors)
    if len(target) == 0:
        return torch.zeros_like(matches), matches
    labels = target.get_field("labels").to(matches)[matches.clamp(min=0)]
    labels = torch.where(matches >= 0, labels, torch.where(matches == BETWEEN, -1, 0))
    return labels, matches.clamp(min=-1)
