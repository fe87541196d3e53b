"""Region proposal network from a config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskrcnn_benchmark.modeling.anchors import AnchorGenerator
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.registry import RPN_HEADS
from maskrcnn_benchmark.modeling.rpn import head as _heads  # noqa: F401  fills RPN_HEADS
from maskrcnn_benchmark.modeling.rpn.inference import ProposalSelector, SelectionSettings
from maskrcnn_benchmark.modeling.rpn.loss import RPNLoss
from maskrcnn_benchmark.modeling.rpn.rpn import RegionProposalNetwork
from maskrcnn_benchmark.structures.features import FeatureSpecs, common_channels

if TYPE_CHECKING:
    from yacs.config import CfgNode


def build_rpn(cfg: CfgNode, features: FeatureSpecs) -> RegionProposalNetwork:
    """MODEL.RPN on the feature maps of a backbone."""
    anchors = AnchorGenerator.from_cfg(cfg)
    box_coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    head = RPN_HEADS.get(cfg.MODEL.RPN.RPN_HEAD).from_cfg(
        cfg, common_channels(features), anchors.num_anchors_per_location()[0]
    )
    selector = ProposalSelector(
        box_coder,
        SelectionSettings.from_cfg(cfg, training=True),
        SelectionSettings.from_cfg(cfg, training=False),
    )
    return RegionProposalNetwork(
        anchors,
        head,
        selector,
        RPNLoss.from_cfg(cfg, box_coder),
        proposals_in_training=not cfg.MODEL.RPN_ONLY,
    )
