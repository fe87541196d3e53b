"""FCOS as a one-stage head: locations, towers, losses and detections put together (Tian et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.checks import require_finite
from maskrcnn_benchmark.modeling.heads.base import OneStageHead
from maskrcnn_benchmark.modeling.heads.common import detection_boxlist, require_strides
from maskrcnn_benchmark.modeling.heads.fcos.loss import FCOSLoss
from maskrcnn_benchmark.modeling.heads.fcos.postprocess import FCOSPostProcessor
from maskrcnn_benchmark.modeling.heads.fcos.targets import FCOSOutputs, Points
from maskrcnn_benchmark.modeling.heads.fcos.towers import FCOSTowers
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.registry import HEADS
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.features import FeatureSpecs, common_channels
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.model_input import ModelInput

if TYPE_CHECKING:
    from yacs.config import CfgNode


class FCOS(OneStageHead[FCOSOutputs]):
    """Child `head`, the towers (parity: its name in published files)."""

    def __init__(
        self,
        towers: FCOSTowers,
        strides: Sequence[int],
        loss: FCOSLoss,
        post_processor: FCOSPostProcessor,
    ) -> None:
        super().__init__()
        self.head = towers
        self.strides = list(strides)
        self.loss = loss
        self.post_processor = post_processor

    def forward(self, features: Sequence[Tensor]) -> FCOSOutputs:
        """Raw outputs on the feature maps (B, K, H_l, W_l), finest first."""
        return FCOSOutputs(*self.head(features))

    def losses(self, outputs: FCOSOutputs, inputs: ModelInput) -> dict[str, LossTerm]:
        """Unnormalised `loss_cls`, `loss_reg`, `loss_centerness`."""
        return self.loss(outputs, self.points(outputs), inputs.ground_truth())

    @torch.no_grad()
    def predict(self, outputs: FCOSOutputs, images: ImageList) -> list[BoxList]:
        """Detections per image, best first: fields `scores`, `labels`."""
        require_finite_outputs(outputs)
        results = []
        per_image = self.post_processor.candidates(outputs, self.points(outputs))
        for candidates, size in zip(per_image, images.image_sizes, strict=True):
            kept = self.post_processor.detections(candidates, size)
            results.append(detection_boxlist(kept.boxes, kept.scores, kept.labels, size))
        return results

    def points(self, outputs: FCOSOutputs) -> Points:
        """Locations of the maps of `outputs`."""
        return Points.of(outputs, self.strides, in_strides=self.head.normalised_targets)


def require_finite_outputs(outputs: FCOSOutputs) -> None:
    """Raise UsageError for outputs that are not finite."""
    for level in outputs.logits:
        require_finite(level, "the class logits")
    for level in (*outputs.distances, *outputs.centerness):
        require_finite(level, "the box distances or the centerness")


@HEADS.register("fcos")
def build_fcos(cfg: CfgNode, features: FeatureSpecs) -> FCOS:
    """Build the head from MODEL.FCOS for the feature maps of a backbone."""
    node = cfg.MODEL.FCOS
    require_strides(features, node.FPN_STRIDES, "MODEL.FCOS.FPN_STRIDES")
    towers = FCOSTowers(
        common_channels(features),
        node.NUM_CLASSES - 1,
        depth=node.NUM_CONVS,
        levels=len(features),
        prior_probability=node.PRIOR_PROB,
        normalised_targets=node.NORM_REG_TARGETS,
        centerness_on_boxes=node.CENTERNESS_ON_REG,
        deformable=node.USE_DCN_IN_TOWER,
    )
    loss = FCOSLoss(
        node.FPN_STRIDES,
        gamma=node.LOSS_GAMMA,
        alpha=node.LOSS_ALPHA,
        box_loss=node.IOU_LOSS_TYPE,
        center_radius=node.CENTER_SAMPLING_RADIUS,
    )
    post_processor = FCOSPostProcessor(
        score_thresh=node.INFERENCE_TH,
        pre_nms_top_n=node.PRE_NMS_TOP_N,
        nms_thresh=node.NMS_TH,
        detections_per_img=cfg.TEST.DETECTIONS_PER_IMG,
    )
    return FCOS(towers, node.FPN_STRIDES, loss, post_processor)
