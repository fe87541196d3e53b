"""Test-time augmentation: one set of detections from several views of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.modeling.checks import require_finite
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import RoIHeads
from maskrcnn_benchmark.structures.boxlist import FLIP_LEFT_RIGHT, BoxList
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.views import ViewList
from maskrcnn_benchmark.utils.errors import ConfigError

if TYPE_CHECKING:
    from yacs.config import CfgNode


@dataclass(frozen=True)
class _ViewOutputs:
    """Outputs of one view of one image: class logits (n, C), deltas (n, 4C) and proposals of its size."""

    logits: Tensor
    deltas: Tensor
    proposals: BoxList
    flipped: bool


class AugmentedDetector(nn.Module):
    """A two-stage detector that looks at all views of a ViewList; evaluation only.

    Boxes of all proposals and classes of every view are brought into the plain view, and score threshold,
    NMS and limit work on them together. Masks and keypoints of the final boxes come from the plain view
    alone.
    """

    def __init__(self, detector: nn.Module) -> None:
        """Wrap `detector`; ConfigError for a model without a box head."""
        super().__init__()
        if not isinstance(detector, GeneralizedRCNN) or detector.roi_heads is None:
            raise ConfigError(
                "TEST.BBOX_AUG.ENABLED needs a two-stage model with a box head; set it to False"
            )
        self.detector = detector
        self.heads: RoIHeads = detector.roi_heads

    @torch.no_grad()
    def forward(self, images: ImageList) -> list[BoxList]:
        """Detections per image in coordinates of its plain view, fields as of the wrapped detector.

        Raises ValueError for an ImageList without views, UsageError for non-finite outputs.
        """
        if not isinstance(images, ViewList):
            raise ValueError("test-time augmentation needs a ViewList")
        per_image: list[list[_ViewOutputs]] = [[] for _ in range(len(images))]
        plain: Sequence[Tensor] = ()
        for view in images.views():
            features = self.detector.features(view)
            proposals = self.detector.rpn.predict(features, view)
            logits, deltas = self.heads.box(features, proposals)
            require_finite(logits, "the class logits")
            require_finite(deltas, "the box deltas")
            counts = [len(p) for p in proposals]
            flips = [geometry.flipped for geometry in view.geometry]
            parts = zip(logits.split(counts), deltas.split(counts), proposals, flips, strict=True)
            for outputs, part in zip(per_image, parts, strict=True):
                outputs.append(_ViewOutputs(*part))
            plain = plain or features
        merged = [self._merge(views) for views in per_image]
        return self.heads.forward_with_given_boxes(plain, merged)

    def _merge(self, views: Sequence[_ViewOutputs]) -> BoxList:
        """Detections of one image from its views, the plain one first."""
        processor, size = self.heads.box.post_processor, views[0].proposals.size
        ends = torch.tensor([len(view.proposals) for view in views]).cumsum(0)

        def boxes_of(row: Tensor, label: Tensor) -> Tensor:
            """Boxes (n, 4) in the plain view of proposals `row`, counted over all views, for `label`."""
            which = torch.bucketize(row, ends.to(row.device), right=True)
            boxes = views[0].proposals.bbox.new_zeros((len(row), 4))
            for i, view in enumerate(views):
                chosen = (which == i).nonzero().flatten()
                start = int(ends[i]) - len(view.proposals)
                decoded = processor.decode(view.deltas, view.proposals, row[chosen] - start, label[chosen])
                boxlist = BoxList(decoded, view.proposals.size)
                if view.flipped:
                    boxlist = boxlist.transpose(FLIP_LEFT_RIGHT)
                boxes[chosen] = boxlist.resize(size).bbox
            return boxes

        scores = torch.cat([view.logits for view in views]).float().softmax(dim=1)
        return processor.filter_results(scores, boxes_of, size)


def model_for_testing(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Model as it is, or with TEST.BBOX_AUG.ENABLED behind test-time augmentation."""
    return AugmentedDetector(model) if cfg.TEST.BBOX_AUG.ENABLED else model
