"""Box head: RoI features, class logits and box deltas, losses, detections (Fast R-CNN, Girshick 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.registry import BOX_FEATURE_EXTRACTORS, BOX_PREDICTORS
from maskrcnn_benchmark.modeling.roi_heads import c4 as _c4  # noqa: F401  registers its extractor
from maskrcnn_benchmark.modeling.roi_heads.box_head import extractors as _extractors  # noqa: F401
from maskrcnn_benchmark.modeling.roi_heads.box_head import predictors as _predictors  # noqa: F401
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import BoxPostProcessor
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import ProposalSampler, box_losses, distillation_loss
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.model_input import StoredLogits
from maskrcnn_benchmark.utils.errors import UsageError

if TYPE_CHECKING:
    from yacs.config import CfgNode


class RoIBoxHead(nn.Module):
    """Children `feature_extractor` (levels, boxes -> features), `predictor` (features -> logits, deltas)."""

    def __init__(
        self,
        feature_extractor: nn.Module,
        predictor: nn.Module,
        sampler: ProposalSampler,
        post_processor: BoxPostProcessor,
    ) -> None:
        super().__init__()
        self.feature_extractor = feature_extractor
        self.predictor = predictor
        self.sampler = sampler
        self.post_processor = post_processor

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int) -> RoIBoxHead:
        """Build from MODEL.ROI_BOX_HEAD and MODEL.ROI_HEADS, for maps of `in_channels` channels."""
        node = cfg.MODEL.ROI_BOX_HEAD
        extractor = BOX_FEATURE_EXTRACTORS.get(node.FEATURE_EXTRACTOR).from_cfg(cfg, in_channels)
        predictor = BOX_PREDICTORS.get(node.PREDICTOR).from_cfg(cfg, extractor.out_channels)
        box_coder = BoxCoder(cfg.MODEL.ROI_HEADS.BBOX_REG_WEIGHTS)
        return cls(
            extractor,
            predictor,
            ProposalSampler.from_cfg(cfg, box_coder),
            BoxPostProcessor.from_cfg(cfg, box_coder),
        )

    def forward(self, features: Sequence[Tensor], proposals: Sequence[BoxList]) -> tuple[Tensor, Tensor]:
        """Return class logits (sum n_i, C) and box deltas (sum n_i, 4C) of the proposals of all images."""
        return self.predictor(self.feature_extractor(features, [p.bbox for p in proposals]))

    def losses(self, box_features: Tensor, sampled: Sequence[BoxList]) -> dict[str, LossTerm]:
        """Return unnormalised `loss_classifier` and `loss_box_reg`.

        box_features: RoI features (sum n_i, D) or (sum n_i, D, h, w) of the sampled proposals, which have
        the fields of ProposalSampler.sample.
        """
        logits, deltas = self.predictor(box_features)
        return box_losses(
            logits,
            deltas,
            torch.cat([p.get_field("labels") for p in sampled]),
            torch.cat([p.get_field("regression_targets") for p in sampled]),
            class_agnostic=self.post_processor.class_agnostic,
        )

    def predict(self, features: Sequence[Tensor], proposals: Sequence[BoxList]) -> list[BoxList]:
        """Return detections per image with fields `scores` (n,) and `labels` (n,)."""
        logits, deltas = self(features, proposals)
        return self.post_processor(logits, deltas, proposals)

    def class_weights(self) -> Tensor:
        """Return the weight (C, D) of the classifier, background first."""
        return self.predictor.get_parameter("cls_score.weight")

    def cosine(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Return unscaled cosines (sum n_i, C) of given xyxy boxes (n_i, 4) per image with every class.

        Raises UsageError when the predictor is not a cosine classifier.
        """
        cosine = getattr(self.predictor, "cosine", None)
        if cosine is None:
            raise UsageError(
                f"MODEL.ROI_BOX_HEAD.PREDICTOR {type(self.predictor).__name__} has no cosine: distillation "
                "needs FPNCosinePredictor (with FPN2MLPCosineFeatureExtractor)"
            )
        return cosine(self.feature_extractor(features, boxes))

    def distillation_loss(
        self, features: Sequence[Tensor], batch: StoredLogits | None, num_old_classes: int
    ) -> LossTerm:
        """Return the unnormalised distillation loss (scalar) of the stored boxes.

        features: per level (B, C, H_l, W_l). Without any box it is a zero connected to the graph.
        """
        reference = features[0]
        if batch is not None and len(batch.boxes) != len(reference):
            raise ValueError(f"distillation boxes of {len(batch.boxes)} images for {len(reference)} images")
        if batch is None or not any(len(b) for b in batch.boxes):
            boxes = [reference.new_zeros((0, 4)) for _ in range(len(reference))]
            teacher = reference.new_zeros((0, num_old_classes + 1))
        else:
            boxes = [b.to(reference.device, torch.float32).reshape(-1, 4) for b in batch.boxes]
            per_image = zip(batch.teacher_cosine, boxes, strict=True)
            teacher = torch.cat(
                [t.to(reference.device).float().reshape(len(b), -1) for t, b in per_image if len(b)]
            )
        return distillation_loss(self.cosine(features, boxes), teacher, num_old_classes)
