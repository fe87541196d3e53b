"""RoI heads: box, mask and keypoint head, and weight transfer from the box to the mask head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.roi_heads.box_head.head import RoIBoxHead
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.head import RoIKeypointHead
from maskrcnn_benchmark.modeling.roi_heads.mask_head.head import ClassWeights, RoIMaskHead
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.features import FeatureSpecs, common_channels
from maskrcnn_benchmark.structures.model_input import ModelInput
from maskrcnn_benchmark.utils.errors import ConfigError

if TYPE_CHECKING:
    from yacs.config import CfgNode


def build_weight_transfer(in_channels: int, out_channels: int) -> nn.Sequential:
    """Weight transfer function of Mask^X R-CNN (Hu et al. 2018, section 3.1), from classifier weights alone.

    Two fully connected layers, both followed by LeakyReLU (0.01): class weights (C, in) -> mask weights
    (C, out).
    """
    return nn.Sequential(
        nn.Linear(in_channels, in_channels),
        nn.LeakyReLU(0.01),
        nn.Linear(in_channels, out_channels),
        nn.LeakyReLU(0.01),
    )


class RoIHeads(nn.Module):
    """Children `box`, and if given `mask`, `bbox2mask` and `keypoint`.

    `num_old_classes` not None adds `loss_distill`, multiplied by `distill_weight`, to the losses of every
    iteration.
    """

    def __init__(
        self,
        box: RoIBoxHead,
        mask: RoIMaskHead | None = None,
        bbox2mask: nn.Module | None = None,
        keypoint: RoIKeypointHead | None = None,
        *,
        num_old_classes: int | None = None,
        distill_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.box = box
        self.mask = mask
        self.bbox2mask = bbox2mask
        self.keypoint = keypoint
        self.num_old_classes = num_old_classes
        self.distill_weight = distill_weight

    @classmethod
    def from_cfg(cls, cfg: CfgNode, features: FeatureSpecs) -> RoIHeads:
        """Build the box head and, with MODEL.MASK_ON and MODEL.KEYPOINT_ON, those heads.

        Raises ConfigError for distillation without a cosine classifier or for too many old classes.
        """
        in_channels = common_channels(features)
        box = RoIBoxHead.from_cfg(cfg, in_channels)
        mask = RoIMaskHead.from_cfg(cfg, in_channels, box.feature_extractor) if cfg.MODEL.MASK_ON else None
        keypoint = RoIKeypointHead.from_cfg(cfg, in_channels) if cfg.MODEL.KEYPOINT_ON else None
        transfer = None
        if mask is not None and cfg.MODEL.ROI_MASK_HEAD.USE_BBOX2MASK:
            channels = cfg.MODEL.ROI_MASK_HEAD.CONV_LAYERS[-1]
            transfer = build_weight_transfer(box.class_weights().shape[1], channels)
        if cfg.MODEL.USE_DISTILL and cfg.MODEL.NUM_DISTILL_CLASSES >= cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES:
            raise ConfigError(
                f"MODEL.NUM_DISTILL_CLASSES {cfg.MODEL.NUM_DISTILL_CLASSES} old classes do not fit into "
                f"MODEL.ROI_BOX_HEAD.NUM_CLASSES {cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES} (with background)"
            )
        if cfg.MODEL.USE_DISTILL and not hasattr(box.predictor, "cosine"):
            raise ConfigError(
                "MODEL.USE_DISTILL needs MODEL.ROI_BOX_HEAD.PREDICTOR FPNCosinePredictor, "
                f"got {cfg.MODEL.ROI_BOX_HEAD.PREDICTOR}"
            )
        return cls(
            box,
            mask,
            transfer,
            keypoint,
            num_old_classes=cfg.MODEL.NUM_DISTILL_CLASSES if cfg.MODEL.USE_DISTILL else None,
            distill_weight=cfg.LST.DISTILL.WEIGHT,
        )

    def mask_class_weights(self, labels: Tensor) -> Tensor:
        """Transfer classifier weights, which get gradients, to mask weights (N, K) of classes `labels` (N,).

        Each distinct class is transferred once, so the cost does not grow with the number of classes.
        """
        assert self.bbox2mask is not None
        distinct, inverse = labels.unique(return_inverse=True)
        return self.bbox2mask(self.box.class_weights()[distinct])[inverse]

    def all_mask_class_weights(self) -> Tensor:
        """Transfer the classifier weights of all classes, background included, to mask weights (C, K)."""
        assert self.bbox2mask is not None
        return self.bbox2mask(self.box.class_weights())

    def _class_weights(self) -> ClassWeights | None:
        return None if self.bbox2mask is None else self.mask_class_weights

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[BoxList], inputs: ModelInput
    ) -> dict[str, LossTerm]:
        """Return unnormalised losses of all heads, with the same keys in every iteration.

        features: per level (B, C, H_l, W_l). Of `inputs` the box head reads seeds and query classes (see
        ProposalSampler.sample), and in a distilled model the stored logits.
        """
        targets = inputs.ground_truth()
        sampled = self.box.sampler.sample(proposals, targets, inputs.query_classes, inputs.seeds)
        box_features = self.box.feature_extractor(features, [p.bbox for p in sampled])
        losses = self.box.losses(box_features, sampled)
        if self.mask is not None:
            losses.update(self.mask.losses(features, sampled, targets, box_features, self._class_weights()))
        if self.keypoint is not None:
            losses.update(self.keypoint.losses(features, sampled, targets))
        if self.num_old_classes is not None:
            term = self.box.distillation_loss(features, inputs.stored_logits, self.num_old_classes)
            losses["loss_distill"] = LossTerm(term.total * self.distill_weight, term.count)
        return losses

    @torch.no_grad()
    def predict(self, features: Sequence[Tensor], proposals: Sequence[BoxList]) -> list[BoxList]:
        """Return detections per image from levels (B, C, H_l, W_l) and proposals.

        Fields: `scores` (n,), `labels` (n,), and those of `forward_with_given_boxes`.
        """
        return self.forward_with_given_boxes(features, self.box.predict(features, proposals))

    @torch.no_grad()
    def forward_with_given_boxes(
        self, features: Sequence[Tensor], detections: list[BoxList]
    ) -> list[BoxList]:
        """Add field `mask` (mask head), `keypoints` and `keypoint_logits` (keypoint head) to detections.

        features: per level (B, C, H_l, W_l).
        """
        if self.mask is not None:
            detections = self.mask.predict(features, detections, self._class_weights())
        if self.keypoint is not None:
            detections = self.keypoint.predict(features, detections)
        return detections
