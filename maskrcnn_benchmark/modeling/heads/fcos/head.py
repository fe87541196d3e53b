"""FCOS as a one-stage head: points, towers, losses and detections put together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.checks import require_finite
from maskrcnn_benchmark.modeling.heads.contract import ImageSizes, OneStageHead
from maskrcnn_benchmark.modeling.heads.fcos.candidates import (
    Candidates,
    CandidateSettings,
    find_candidates,
)
from maskrcnn_benchmark.modeling.heads.fcos.loss import FCOSLoss
from maskrcnn_benchmark.modeling.heads.fcos.outputs import FCOSOutputs, Points
from maskrcnn_benchmark.modeling.heads.fcos.suppress import SuppressionSettings, detections_of
from maskrcnn_benchmark.modeling.heads.fcos.towers import FCOSTowers
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.structures.boxlist import BoxList


class FCOS(OneStageHead[FCOSOutputs]):
    """Child `head` (parity: its name in published files)."""

    def __init__(
        self,
        towers: FCOSTowers,
        strides: Sequence[int],
        loss: FCOSLoss,
        candidates: CandidateSettings,
        suppression: SuppressionSettings,
    ) -> None:
        super().__init__()
        self.head = towers
        self.strides = list(strides)
        self.loss = loss
        self.candidates = candidates
        self.suppression = suppression

    def forward(self, features: Sequence[Tensor]) -> FCOSOutputs:
        """See OneStageHead."""
        return FCOSOutputs(*self.head(features))

    def losses(
        self, outputs: FCOSOutputs, targets: Sequence[BoxList], image_sizes: ImageSizes
    ) -> dict[str, LossTerm]:
        """`loss_cls`, `loss_reg`, `loss_centerness`."""
        return self.loss(outputs, self.points(outputs), targets)

    @torch.no_grad()
    def predict(
        self, outputs: FCOSOutputs, image_sizes: ImageSizes, original_sizes: ImageSizes
    ) -> list[BoxList]:
        """See OneStageHead; fields `scores`, `labels`."""
        require_outputs(outputs)
        found = find_candidates(outputs, self.points(outputs), self.candidates)
        sizes = zip(found, image_sizes, strict=True)
        return [as_boxlist(detections_of(c, size, (1.0, 1.0), self.suppression), size) for c, size in sizes]

    def points(self, outputs: FCOSOutputs) -> Points:
        """The locations that outputs of these sizes belong to."""
        return Points.of(outputs, self.strides, in_strides=self.head.rectified)


def require_outputs(outputs: FCOSOutputs) -> None:
    """Raise UsageError for outputs that are not finite."""
    for level in outputs.logits:
        require_finite(level, "the class logits")
    for level in (*outputs.distances, *outputs.centerness):
        require_finite(level, "the box distances or the centerness")


def as_boxlist(found: Candidates, size: tuple[int, int]) -> BoxList:
    """Detections as a BoxList of a picture of `size` (height, width), fields `scores` and `labels`."""
    result = BoxList(found.boxes, (size[1], size[0]), mode="xyxy")
    result.add_field("scores", found.scores)
    result.add_field("labels", found.labels)
    return result
