"""The two-stage detector: backbone, region proposals, region heads (Ren et al. 2015, He et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.modeling.distill import DistillBatch
from maskrcnn_benchmark.modeling.losses import mean_losses
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import RoIHeads
from maskrcnn_benchmark.modeling.rpn.rpn import RegionProposalNetwork
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList, to_image_list
from maskrcnn_benchmark.utils.errors import UsageError

Images = ImageList | Sequence[Tensor] | Tensor


class GeneralizedRCNN(nn.Module):
    """Children `backbone`, `rpn` and, unless the model is RPN-only, `roi_heads`."""

    def __init__(self, backbone: nn.Module, rpn: RegionProposalNetwork, roi_heads: RoIHeads | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads

    def forward(
        self,
        images: Images,
        targets: Sequence[BoxList] | None = None,
        *,
        query_classes: Sequence[int] | None = None,
        distill: DistillBatch | None = None,
        seeds: Sequence[int] | None = None,
    ) -> dict[str, Tensor] | list[BoxList]:
        """Training: dict of scalar losses, same keys in every step. Evaluation: detections per image.

        With several processes every one must take part in a training call: the losses are divided by counts
        of the whole batch, so that their mean over the processes is the loss of one process with all
        images.

        images: normalised float32 images (3,h,w), or an ImageList of them.
        targets: boxes in coordinates of the network input with fields `labels`
        (1..C), `masks` (mask models) and `keypoints` (keypoint models); may be empty lists of boxes.
        query_classes: one label per image, 0 for ordinary sampling (LST spec 4). distill: stored
        teacher outputs (LST spec 6). seeds: one
        number per image for the choice of anchors and proposals; None takes torch's default generator.
        Detections: boxes in the network input with fields
        `scores`, `labels`, `mask` (mask models), `keypoints` and `keypoint_logits` (keypoint
        models); RPN-only: proposals with `objectness`, best first.
        Raises ValueError without targets in training, UsageError for non-finite outputs in evaluation.
        """
        if self.training:
            if targets is None:
                raise ValueError("targets are needed in training mode; call model.eval() for detection")
            return self._losses(to_image_list(images), targets, query_classes, distill, seeds)
        return self._detections(to_image_list(images))

    def features(self, images: ImageList) -> list[Tensor]:
        """Feature maps, computed channels-last: the layout in which convolutions are fastest."""
        return self.backbone(images.tensors.contiguous(memory_format=torch.channels_last))

    def _losses(
        self,
        images: ImageList,
        targets: Sequence[BoxList],
        query_classes: Sequence[int] | None,
        distill: DistillBatch | None,
        seeds: Sequence[int] | None,
    ) -> dict[str, Tensor]:
        if len(targets) != len(images):
            raise ValueError(f"{len(images)} images but {len(targets)} targets")
        features = self.features(images)
        proposals, losses = self.rpn(images, features, targets, seeds)
        if self.roi_heads is None:
            return mean_losses(losses)
        heads = self.roi_heads.losses(
            features, proposals, targets, query_classes=query_classes, distill=distill, seeds=seeds
        )
        return mean_losses({**heads, **losses})

    @torch.no_grad()
    def _detections(self, images: ImageList) -> list[BoxList]:
        features = self.features(images)
        proposals, _ = self.rpn(images, features)
        if self.roi_heads is None:
            return [p[p.get_field("objectness").argsort(descending=True, stable=True)] for p in proposals]
        return self.roi_heads.predict(features, proposals)

    @torch.no_grad()
    def box_cosine(self, images: Images, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Unscaled class cosines (n_i, C) float32 of given boxes (n_i,4) per image.

        Boxes are xyxy in the network input. Column 0 is background. Raises UsageError when the model has no
        cosine classifier.
        """
        return self._at_boxes("cosine", images, boxes)

    @torch.no_grad()
    def box_features(self, images: Images, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Region features (n_i, D), as the class predictor gets them, of given boxes (n_i,4) per image."""
        return self._at_boxes("feature_extractor", images, boxes)

    def _at_boxes(self, what: str, images: Images, boxes: Sequence[Tensor]) -> list[Tensor]:
        """What the box head's attribute `what` gives for xyxy boxes of every image."""
        if self.roi_heads is None:
            raise UsageError("MODEL.RPN_ONLY: a model without region heads sees no boxes of classes")
        batch = to_image_list(images)
        if len(boxes) != len(batch):
            raise ValueError(f"boxes of {len(boxes)} images for {len(batch)} images")
        features = self.features(batch)
        device = batch.tensors.device
        placed = [b.to(device, torch.float32).reshape(-1, 4) for b in boxes]
        values = getattr(self.roi_heads.box, what)(features, placed)
        return list(values.split([len(b) for b in placed]))
