"""The two-stage detector: backbone, region proposals, RoI heads (Ren et al. 2015, He et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.modeling.checks import require_finite
from maskrcnn_benchmark.modeling.detectors.base import Detector
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import RoIHeads
from maskrcnn_benchmark.modeling.rpn.inference import add_ground_truth
from maskrcnn_benchmark.modeling.rpn.rpn import RegionProposalNetwork
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList, to_image_list
from maskrcnn_benchmark.structures.model_input import Images, ModelInput
from maskrcnn_benchmark.utils.errors import UsageError


class GeneralizedRCNN(Detector):
    """Children `backbone`, `rpn` and, unless the model is RPN-only, `roi_heads`.

    Of a ModelInput it also reads seeds (of the sampled anchors and proposals), query classes and stored
    logits.
    """

    def __init__(self, backbone: nn.Module, rpn: RegionProposalNetwork, roi_heads: RoIHeads | None) -> None:
        super().__init__(backbone)
        self.rpn = rpn
        self.roi_heads = roi_heads

    def losses(self, inputs: ModelInput) -> dict[str, LossTerm]:
        """Losses of the RoI heads, then of the region proposal network."""
        features = self.features(inputs.images)
        losses = self.rpn.losses(features, inputs)
        if self.roi_heads is None:
            return losses
        proposals = add_ground_truth(self.rpn.predict(features, inputs.images), inputs.ground_truth())
        return {**self.roi_heads.losses(features, proposals, inputs), **losses}

    @torch.no_grad()
    def predict(self, images: ImageList) -> list[BoxList]:
        """Detections of the RoI heads, or of an RPN-only model its proposals, best first."""
        features = self.features(images)
        proposals = self.rpn.predict(features, images)
        if self.roi_heads is None:
            return [p[p.get_field("objectness").argsort(descending=True, stable=True)] for p in proposals]
        return self.roi_heads.predict(features, proposals)

    @torch.no_grad()
    def box_cosine(self, images: Images, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Unscaled class cosines (n_i, C) float32 of given boxes (n_i, 4) per image.

        Boxes are xyxy in the network input. Column 0 is background. Raises UsageError when the model has no
        cosine classifier, or for cosines that are not finite.
        """
        return self._at_boxes("cosine", images, boxes)

    @torch.no_grad()
    def box_features(self, images: Images, boxes: Sequence[Tensor]) -> list[Tensor]:
        """RoI features (n_i, D), as the class predictor gets them, of given boxes (n_i, 4) per image."""
        return self._at_boxes("feature_extractor", images, boxes)

    def _at_boxes(self, what: str, images: Images, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Result of the box head's attribute `what` for xyxy boxes of every image."""
        if self.roi_heads is None:
            raise UsageError(
                "box features need an RoI box head, but the model predicts proposals only: set "
                "MODEL.RPN_ONLY False and MODEL.HEAD ''"
            )
        batch = to_image_list(images)
        if len(boxes) != len(batch):
            raise ValueError(f"boxes of {len(boxes)} images for {len(batch)} images")
        features = self.features(batch)
        device = batch.tensors.device
        device_boxes = [b.to(device, torch.float32).reshape(-1, 4) for b in boxes]
        values = getattr(self.roi_heads.box, what)(features, device_boxes)
        require_finite(values, "the class cosines" if what == "cosine" else "the RoI features")
        return list(values.split([len(b) for b in device_boxes]))
