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
from maskrcnn_benchmark.modeling.rpn.inference import ProposalSelector
from maskrcnn_benchmark.modeling.rpn.loss import RPNLoss
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.features import FeatureSpecs, common_channels
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.model_input import ModelInput

if TYPE_CHECKING:
    from yacs.config import CfgNode


class RegionProposalNetwork(nn.Module):
    """Proposals for the RoI heads; children `anchor_generator` and `head`."""

    def __init__(
        self,
        anchor_generator: AnchorGenerator,
        head: RPNHead,
        loss: RPNLoss,
        *,
        train_selector: ProposalSelector,
        test_selector: ProposalSelector,
    ) -> None:
        super().__init__()
        self.anchor_generator = anchor_generator
        self.head = head
        self.loss = loss
        self.train_selector = train_selector
        self.test_selector = test_selector

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
        )

    def losses(self, features: Sequence[Tensor], inputs: ModelInput) -> dict[str, LossTerm]:
        """Unnormalised `loss_objectness` and `loss_rpn_box_reg`; features: per level (B, C, H_l, W_l)."""
        anchors = torch.cat(self._anchors(features))
        sizes = inputs.images.image_sizes
        visibility = [self.anchor_generator.visibility(anchors, size) for size in sizes]
        predict = partial(self.head.forward_sampled, features)
        return self.loss(anchors, visibility, predict, inputs.ground_truth(), inputs.seeds)

    @torch.no_grad()
    def predict(self, features: Sequence[Tensor], images: ImageList) -> list[BoxList]:
        """Proposals per image with field `objectness`; features: per level (B, C, H_l, W_l)."""
        logits, deltas = self.head(features)
        selector = self.train_selector if self.training else self.test_selector
        return selector.select(
            self._anchors(features),
            flatten_levels(logits, 1),
            flatten_levels(deltas, 4),
            images.image_sizes,
        )

    def _anchors(self, features: Sequence[Tensor]) -> list[Tensor]:
        return self.anchor_generator([(f.shape[-2], f.shape[-1]) for f in features])
