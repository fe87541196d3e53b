"""Test-time augmentation: one set of detections from several views of an image (core spec 14)."""

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
class _Seen:
    """What one view gives for one image: class logits (N,C), deltas (N,4C) and proposals of its size."""

    logits: Tensor
    deltas: Tensor
    proposals: BoxList
    flipped: bool


class AugmentedDetector(nn.Module):
    """A two-stage detector that looks at all views of a ViewList; evaluation only.

    Boxes of all proposals and classes of every view are brought into the plain view, and threshold,
    suppression and limit work on them together. Masks and keypoints of the final boxes come from the plain
    view alone.
    """

    def __init__(self, detector: nn.Module) -> None:
        """Wrap `detector`; ConfigError for a model without a box head."""
        super().__init__()
        if not isinstance(detector, GeneralizedRCNN) or detector.roi_heads is None:
            raise ConfigError(
                "TEST.BBOX_AUG.ENABLED needs a model with a box head (not RPN_ONLY, not RetinaNet); set it "
                "to False"
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
        seen: list[list[_Seen]] = [[] for _ in range(len(images))]
        plain: Sequence[Tensor] = ()
        for view, flipped in images.views():
            features = self.detector.features(view)
            proposals, _ = self.detector.rpn(view, features)
            logits, deltas = self.heads.box.outputs(features, proposals)
            require_finite(logits, "the class logits")
            require_finite(deltas, "the box deltas")
            counts = [len(p) for p in proposals]
            parts = zip(seen, logits.split(counts), deltas.split(counts), proposals, strict=True)
            for own, own_logits, own_deltas, own_proposals in parts:
                own.append(_Seen(own_logits, own_deltas, own_proposals, flipped))
            plain = plain or features
        return self.heads.attach(plain, [self._merge(own) for own in seen])

    def _merge(self, seen: Sequence[_Seen]) -> BoxList:
        """Detections of one image from its views."""
        select, size = self.heads.box.post_processor, seen[0].proposals.size
        starts = torch.tensor([len(view.proposals) for view in seen]).cumsum(0)

        def boxes_of(row: Tensor, label: Tensor) -> Tensor:
            """Boxes (n,4) in the plain view of proposals `row`, counted over all views, for `label`."""
            which = torch.bucketize(row, starts.to(row.device), right=True)
            boxes = seen[0].proposals.bbox.new_zeros((len(row), 4))
            for number, view in enumerate(seen):
                own = (which == number).nonzero().flatten()
                first = int(starts[number]) - len(view.proposals)
                found = select.decode(view.deltas, view.proposals, row[own] - first, label[own])
                placed = BoxList(found, view.proposals.size)
                if view.flipped:
                    placed = placed.transpose(FLIP_LEFT_RIGHT)
                boxes[own] = placed.resize(size).bbox
            return boxes

        return select.choose(torch.cat([view.logits for view in seen]).float().softmax(dim=1), boxes_of, size)


def model_for_testing(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """The model itself, or with TEST.BBOX_AUG.ENABLED the model behind test-time augmentation."""
    return AugmentedDetector(model) if cfg.TEST.BBOX_AUG.ENABLED else model
