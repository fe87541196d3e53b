"""Region proposal network: head, anchors, proposal selection and loss put together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.modeling.anchors import AnchorGenerator
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.rpn.head import RPNHead, flatten_levels
from maskrcnn_benchmark.modeling.rpn.inference import ProposalSelector, add_ground_truth
from maskrcnn_benchmark.modeling.rpn.loss import RPNLoss
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList


class RegionProposalNetwork(nn.Module):
    """Proposals for the region heads; children `anchor_generator` and `head`.

    With `proposals_in_training` False (RPN-only models) training computes the losses alone.
    """

    def __init__(
        self,
        anchor_generator: AnchorGenerator,
        head: RPNHead,
        selector: ProposalSelector,
        loss: RPNLoss,
        *,
        proposals_in_training: bool = True,
    ) -> None:
        super().__init__()
        self.anchor_generator = anchor_generator
        self.head = head
        self.selector = selector
        self.loss = loss
        self.proposals_in_training = proposals_in_training

    def forward(
        self,
        images: ImageList,
        features: Sequence[Tensor],
        targets: Sequence[BoxList] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> tuple[list[BoxList], dict[str, LossTerm]]:
        """Proposals per image (field `objectness`) and, in training mode, losses before their division.

        features: per level (B,C,H_l,W_l). In training the ground truth boxes of `targets` are appended to the
        proposals; in evaluation `targets` is not used and the losses are empty.
        """
        anchors = self.anchor_generator([(f.shape[-2], f.shape[-1]) for f in features])
        losses: dict[str, LossTerm] = {}
        if self.training:
            if targets is None:
                raise ValueError("the region proposal network needs targets in training mode")
            everything = torch.cat(anchors)
            visible = [self.anchor_generator.visibility(everything, size) for size in images.image_sizes]
            losses = self.loss(everything, visible, partial(self.head.at, features), targets, seeds)
            if not self.proposals_in_training:
                return [], losses
        with torch.no_grad():
            logits, deltas = self.head(features)
        proposals = self.selector.select(
            anchors,
            flatten_levels(logits, 1),
            flatten_levels(deltas, 4),
            images.image_sizes,
            training=self.training,
        )
        if self.training and targets is not None:
            proposals = add_ground_truth(proposals, targets)
        return proposals, losses
