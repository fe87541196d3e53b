"""The box head: region features, predictor, targets, losses, detections."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.modeling.distill import distillation_loss
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import BoxPostProcessor
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import box_losses
from maskrcnn_benchmark.modeling.roi_heads.box_head.targets import BoxTargets
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.model_input import StoredLogits
from maskrcnn_benchmark.utils.errors import UsageError


class RoIBoxHead(nn.Module):
    """Children `feature_extractor` (levels, boxes -> features), `predictor` (features -> logits, deltas)."""

    def __init__(
        self,
        feature_extractor: nn.Module,
        predictor: nn.Module,
        targets: BoxTargets,
        post_processor: BoxPostProcessor,
    ) -> None:
        super().__init__()
        self.feature_extractor = feature_extractor
        self.predictor = predictor
        self.targets = targets
        self.post_processor = post_processor

    def train_step(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[BoxList],
        targets: Sequence[BoxList],
        query_classes: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> tuple[Tensor, list[BoxList], dict[str, LossTerm]]:
        """Region features of the sampled proposals, these proposals (BoxTargets.sample), and the losses."""
        sampled = self.targets.sample(proposals, targets, query_classes, seeds)
        x = self.feature_extractor(features, [p.bbox for p in sampled])
        logits, deltas = self.predictor(x)
        losses = box_losses(
            logits,
            deltas,
            torch.cat([p.get_field("labels") for p in sampled]),
            torch.cat([p.get_field("regression_targets") for p in sampled]),
            class_agnostic=self.post_processor.class_agnostic,
        )
        return x, sampled, losses

    def detect(self, features: Sequence[Tensor], proposals: Sequence[BoxList]) -> list[BoxList]:
        """Detections per image: fields `scores`, `labels`."""
        logits, deltas = self.outputs(features, proposals)
        return self.post_processor(logits, deltas, proposals)

    def outputs(self, features: Sequence[Tensor], proposals: Sequence[BoxList]) -> tuple[Tensor, Tensor]:
        """Class logits (sum n_i, C) and box deltas (sum n_i, 4C) of proposals."""
        return self.predictor(self.feature_extractor(features, [p.bbox for p in proposals]))

    def classifier_rows(self) -> Tensor:
        """Weight (C,D) of the class scores, background first."""
        return self.predictor.get_parameter("cls_score.weight")

    def cosine(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Unscaled class cosines (sum n_i, C) of given xyxy boxes (n_i,4) per image.

        Raises UsageError when the predictor is not a cosine classifier.
        """
        cosine = getattr(self.predictor, "cosine", None)
        if cosine is None:
            raise UsageError(
                f"MODEL.ROI_BOX_HEAD.PREDICTOR {type(self.predictor).__name__} has no cosine: distillation "
                "needs FPNCosinePredictor (with FPN2MLPCosineFeatureExtractor)"
            )
        return cosine(self.feature_extractor(features, boxes))

    def distill(
        self, features: Sequence[Tensor], batch: StoredLogits | None, num_old_classes: int
    ) -> LossTerm:
        """Distillation loss of the stored boxes; without any, a zero connected to the graph."""
        reference = features[0]
        if batch is not None and len(batch.boxes) != len(reference):
            raise ValueError(f"distillation boxes of {len(batch.boxes)} images for {len(reference)} images")
        if batch is None or not any(len(b) for b in batch.boxes):
            boxes = [reference.new_zeros((0, 4)) for _ in range(len(reference))]
            teacher = reference.new_zeros((0, num_old_classes + 1))
        else:
            boxes = [b.to(reference.device, torch.float32).reshape(-1, 4) for b in batch.boxes]
            rows = zip(batch.teacher_cosine, boxes, strict=True)
            teacher = torch.cat(
                [t.to(reference.device).float().reshape(len(b), -1) for t, b in rows if len(b)]
            )
        return distillation_loss(self.cosine(features, boxes), teacher, num_old_classes)
