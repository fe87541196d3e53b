"""One-stage heads by name: the family of the model -> head.

The imports below are the list of heads of the package; a head from outside registers itself with HEADS in the
same way, when its module is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maskrcnn_benchmark.modeling.heads.base import OneStageHead
from maskrcnn_benchmark.modeling.heads.fcos import head as fcos
from maskrcnn_benchmark.modeling.heads.retinanet import head as retinanet
from maskrcnn_benchmark.modeling.heads.sipmask import head as sipmask
from maskrcnn_benchmark.modeling.registry import HEADS
from maskrcnn_benchmark.structures.features import FeatureSpecs

if TYPE_CHECKING:
    from yacs.config import CfgNode

BUILT_IN = (fcos, retinanet, sipmask)
"""Modules whose import registers the heads of the package."""


def build_head(cfg: CfgNode, name: str, features: FeatureSpecs) -> OneStageHead[Any]:
    """Build the head `name` for the feature maps of a backbone; ConfigError lists close names."""
    head: OneStageHead[Any] = HEADS.get(name)(cfg, features)
    return head
