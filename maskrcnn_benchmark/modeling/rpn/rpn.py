"""Region proposal network (Ren et al. 2015): anchors, head, proposal selection and loss put together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.modeling.anchors import AnchorGenerator
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.registry import RPN_HEADS
from maskrcnn_benchmark.modeling.rpn.head import RPNHead, flatten_levels
from maskrcnn_benchmark.modeling.rpn.inference import ProposalSelector, add_ground_truth
from maskrcnn_benchmark.modeling.rpn.loss import RPNLoss
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.features import FeatureSpecs, common_channels
from maskrcnn_benchmark.structures.image_list import ImageList

if TYPE_CHECKING:
    from yacs.config import CfgNode


class RegionProposalNetwork(nn.Module):
    """Proposals for the RoI heads; children `anchor_generator` and `head`.

    With `proposals_in_training` False (RPN-only models) training computes the losses alone.
    """

    def __init__(
        self,
        anchor_generator: AnchorGenerator,
        head: RPNHead,
        loss: RPNLoss,
        *,
        train_selector: ProposalSelector,
        test_selector: ProposalSelector,
        proposals_in_training: bool = True,
    ) -> None:
        super().__init__()
        self.anchor_generator = anchor_generator
        self.head = head
        self.loss = loss
        self.train_selector = train_selector
        self.test_selector = test_selector
        self.proposals_in_training = proposals_in_training

    @classmethod
    def from_cfg(cls, cfg: CfgNode, features: FeatureSpecs) -> RegionProposalNetwork:
        """Build from MODEL.RPN for the feature maps of a backbone."""
        anchor_generator = AnchorGenerator.from_cfg(cfg)
        in_channels, num_anchors = common_channels(features), anchor_generator.num_anchors_per_location()[0]
        box_coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        return cls(
            anchor_generator,
            RPN_HEADS.get(cfg.MODEL.RPN.RPN_HEAD).from_cfg(cfg, in_channels, num_anchors),
            RPNLoss.from_cfg(cfg, box_coder),
            train_selector=ProposalSelector.from_cfg(cfg, box_coder, training=True),
            test_selector=ProposalSelector.from_cfg(cfg, box_coder, training=False),
            proposals_in_training=not cfg.MODEL.RPN_ONLY,
        )

    def forward(
        self,
        images: ImageList,
        features: Sequence[Tensor],
        targets: Sequence[BoxList] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> tuple[list[BoxList], dict[str, LossTerm]]:
        """Return proposals per image (field `objectness`) and, in training mode, unnormalised losses.

        features: per level (B, C, H_l, W_l). In training the ground truth boxes of `targets` are appended to
        the proposals; in evaluation `targets` is not used and the losses are empty.
        """
        anchors = self.anchor_generator([(f.shape[-2], f.shape[-1]) for f in features])
        losses: dict[str, LossTerm] = {}
        if self.training:
            if targets is None:
                raise ValueError("the region proposal network needs targets in training mode")
            all_anchors = torch.cat(anchors)
            visibility = [self.anchor_generator.visibility(all_anchors, size) for size in images.image_sizes]
            losses = self.loss(
                all_anchors, visibility, partial(self.head.forward_sampled, features), targets, seeds
            )
            if not self.proposals_in_training:
                return [], losses
        with torch.no_grad():
            logits, deltas = self.head(features)
        selector = self.train_selector if self.training else self.test_selector
        proposals = selector.select(
            anchors, flatten_levels(logits, 1), flatten_levels(deltas, 4), images.image_sizes
        )
        if self.training and targets is not None:
            proposals = add_ground_truth(proposals, targets)
        return proposals, losses
