"""The mask head: region features, predictor, loss, masks of detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.layers.masks import paste_masks
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.roi_heads.mask_head.loss import mask_loss, mask_targets
from maskrcnn_benchmark.modeling.roi_heads.mask_head.predictors import MaskPredictor
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.errors import ConfigError

ClassRows = Callable[[Tensor], Tensor]
"""Labels (N,) -> mask weights (N,K) of their classes, made from the box classifier (LST)."""


class RoIMaskHead(nn.Module):
    """Children `feature_extractor` (levels, boxes -> maps) and `predictor` (maps, labels -> logits).

    `paste_threshold` None leaves masks on their MxM grid; a number pastes them into the network input.
    """

    def __init__(
        self,
        feature_extractor: nn.Module,
        predictor: MaskPredictor,
        *,
        resolution: int,
        shares_box_features: bool = False,
        paste_threshold: float | None = None,
    ) -> None:
        super().__init__()
        self.feature_extractor = feature_extractor
        self.predictor = predictor
        self.resolution = resolution
        self.shares_box_features = shares_box_features
        self.paste_threshold = paste_threshold

    def _logits(self, x: Tensor, labels: Tensor, class_rows: ClassRows | None) -> Tensor:
        logits = self.predictor(x, labels, None if class_rows is None else class_rows(labels))
        if logits.shape[-1] != self.resolution:
            raise ConfigError(
                f"MODEL.ROI_MASK_HEAD.RESOLUTION is {self.resolution}, but the mask predictor "
                f"gives side {logits.shape[-1]} (POOLER_RESOLUTION, or twice that); make them equal"
            )
        return logits

    def train_step(
        self,
        features: Sequence[Tensor],
        sampled: Sequence[BoxList],
        targets: Sequence[BoxList],
        box_features: Tensor,
        class_rows: ClassRows | None = None,
    ) -> dict[str, LossTerm]:
        """`loss_mask` over the positives of the box head's sample (fields `labels`, `matched_idxs`).

        box_features: the box head's region features of `sampled`,
        used when the two heads share their extractor.
        """
        positive = [(p.get_field("labels") > 0).nonzero().flatten() for p in sampled]
        regions = [
            p.copy_with_fields(("labels", "matched_idxs"))[i] for p, i in zip(sampled, positive, strict=True)
        ]
        labels = torch.cat([r.get_field("labels") for r in regions])
        if self.shares_box_features:
            x = box_features[torch.cat([p.get_field("labels") for p in sampled]) > 0]
        else:
            x = self.feature_extractor(features, [r.bbox for r in regions])
        logits = self._logits(x, labels, class_rows)
        return {"loss_mask": mask_loss(logits, mask_targets(regions, targets, self.resolution))}

    def detect(
        self, features: Sequence[Tensor], detections: Sequence[BoxList], class_rows: ClassRows | None = None
    ) -> list[BoxList]:
        """The detections (fields `scores`, `labels`) with field `mask`.

        (n,1,M,M) float32 probabilities of the predicted class, or with a paste threshold (n,1,h,w) bool in
        the network input (without padding).
        """
        labels = torch.cat([d.get_field("labels") for d in detections])
        x = self.feature_extractor(features, [d.bbox for d in detections])
        masks = self._logits(x, labels, class_rows).float().sigmoid()
        per_image = masks.split([len(d) for d in detections])
        return [self._attach(d, m) for d, m in zip(detections, per_image, strict=True)]

    def _attach(self, detections: BoxList, masks: Tensor) -> BoxList:
        result = detections.copy_with_fields(detections.fields())
        if self.paste_threshold is not None:
            width, height = detections.size
            masks = paste_masks(masks, detections.bbox, height, width, self.paste_threshold, 1)
        result.add_field("mask", masks[:, None])
        return result

    def all_logits(
        self, features: Sequence[Tensor], detections: Sequence[BoxList], class_rows: Tensor | None = None
    ) -> Tensor:
        """Logits (sum n_i, C, M, M) of all classes for given boxes: for checks against references."""
        return self.predictor.all_logits(
            self.feature_extractor(features, [d.bbox for d in detections]), class_rows
        )
