"""Box, mask and keypoint head, and the transfer of classifier weights between the first two."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.roi_heads.box_head.head import RoIBoxHead
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.head import RoIKeypointHead
from maskrcnn_benchmark.modeling.roi_heads.mask_head.head import ClassRows, RoIMaskHead
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.model_input import ModelInput


def build_weight_transfer(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two fully connected layers, LeakyReLU (0.01) after both: classifier rows (C,in) -> mask rows (C,out).

    Mask^X R-CNN (Hu et al. 2018), from class weights alone (LST spec 5).
    """
    return nn.Sequential(
        nn.Linear(in_channels, in_channels),
        nn.LeakyReLU(0.01),
        nn.Linear(in_channels, out_channels),
        nn.LeakyReLU(0.01),
    )


class RoIHeads(nn.Module):
    """Children `box`, and if given `mask`, `bbox2mask` and `keypoint`.

    `num_old_classes` not None adds `loss_distill` (times `distill_weight`) to the losses, in every step.
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

    def mask_rows(self, labels: Tensor) -> Tensor:
        """Mask weights (N,K) of classes `labels` (N,) from the raw classifier rows, which get gradients.

        Each distinct class is transferred once, so the cost does not grow with the number of classes.
        """
        assert self.bbox2mask is not None
        distinct, inverse = labels.unique(return_inverse=True)
        return self.bbox2mask(self.box.classifier_rows()[distinct])[inverse]

    def all_mask_rows(self) -> Tensor:
        """Mask weights (C,K) of all classes, background included."""
        assert self.bbox2mask is not None
        return self.bbox2mask(self.box.classifier_rows())

    def _class_rows(self) -> ClassRows | None:
        return None if self.bbox2mask is None else self.mask_rows

    def losses(
        self, features: Sequence[Tensor], proposals: Sequence[BoxList], inputs: ModelInput
    ) -> dict[str, LossTerm]:
        """Unnormalised losses of all heads; the keys are the same in every step.

        Of `inputs` the box head reads seeds and query classes (see BoxTargets.sample), and where the model
        distils the stored logits.
        """
        targets = inputs.ground_truth()
        x, sampled, losses = self.box.train_step(
            features, proposals, targets, inputs.query_classes, inputs.seeds
        )
        if self.mask is not None:
            losses.update(self.mask.train_step(features, sampled, targets, x, self._class_rows()))
        if self.keypoint is not None:
            losses.update(self.keypoint.train_step(features, sampled, targets))
        if self.num_old_classes is not None:
            term = self.box.distill(features, inputs.stored_logits, self.num_old_classes)
            losses["loss_distill"] = LossTerm(term.total * self.distill_weight, term.count)
        return losses

    @torch.no_grad()
    def predict(self, features: Sequence[Tensor], proposals: Sequence[BoxList]) -> list[BoxList]:
        """Detections per image: fields `scores`, `labels`, and those of `attach`."""
        return self.attach(features, self.box.detect(features, proposals))

    @torch.no_grad()
    def attach(self, features: Sequence[Tensor], detections: list[BoxList]) -> list[BoxList]:
        """The detections with field `mask` (mask head), `keypoints` and `keypoint_logits` (keypoint head)."""
        if self.mask is not None:
            detections = self.mask.detect(features, detections, self._class_rows())
        if self.keypoint is not None:
            detections = self.keypoint.detect(features, detections)
        return detections
