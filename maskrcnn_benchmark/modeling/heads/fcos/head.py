"""FCOS as a one-stage head: points, towers, losses and detections put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.checks import require_finite
from maskrcnn_benchmark.modeling.heads.base import OneStageHead
from maskrcnn_benchmark.modeling.heads.fcos.loss import FCOSLoss, LossSettings
from maskrcnn_benchmark.modeling.heads.fcos.postprocess import (
    Candidates,
    CandidateSettings,
    SuppressionSettings,
    detections_of,
    find_candidates,
)
from maskrcnn_benchmark.modeling.heads.fcos.targets import FCOSOutputs, Points
from maskrcnn_benchmark.modeling.heads.fcos.towers import FCOSTowers, TowerStyle
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.registry import HEADS
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.features import FeatureSpecs, common_channels
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.model_input import ModelInput

if TYPE_CHECKING:
    from yacs.config import CfgNode


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

    def losses(self, outputs: FCOSOutputs, inputs: ModelInput) -> dict[str, LossTerm]:
        """`loss_cls`, `loss_reg`, `loss_centerness`."""
        return self.loss(outputs, self.points(outputs), inputs.ground_truth())

    @torch.no_grad()
    def predict(self, outputs: FCOSOutputs, images: ImageList) -> list[BoxList]:
        """See OneStageHead; fields `scores`, `labels`."""
        require_outputs(outputs)
        found = find_candidates(outputs, self.points(outputs), self.candidates)
        sizes = zip(found, images.image_sizes, strict=True)
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
    """Detections as a BoxList of an image of `size` (height, width), fields `scores` and `labels`."""
    result = BoxList(found.boxes, (size[1], size[0]), mode="xyxy")
    result.add_field("scores", found.scores)
    result.add_field("labels", found.labels)
    return result


@HEADS.register("fcos")
def build_fcos(cfg: CfgNode, features: FeatureSpecs) -> FCOS:
    """MODEL.FCOS on the feature maps of a backbone."""
    node = cfg.MODEL.FCOS
    towers = FCOSTowers(
        common_channels(features),
        node.NUM_CLASSES - 1,
        depth=node.NUM_CONVS,
        levels=len(node.FPN_STRIDES),
        prior_probability=node.PRIOR_PROB,
        rectified=node.NORM_REG_TARGETS,
        centerness_on_boxes=node.CENTERNESS_ON_REG,
        style=TowerStyle(deformable=node.USE_DCN_IN_TOWER),
    )
    return FCOS(
        towers,
        node.FPN_STRIDES,
        FCOSLoss(
            node.FPN_STRIDES,
            LossSettings(node.LOSS_GAMMA, node.LOSS_ALPHA, node.IOU_LOSS_TYPE, node.CENTER_SAMPLING_RADIUS),
        ),
        CandidateSettings(node.INFERENCE_TH, node.PRE_NMS_TOP_N),
        SuppressionSettings(node.NMS_TH, cfg.TEST.DETECTIONS_PER_IMG),
    )
