"""RetinaNet as a one-stage head: anchors, towers, losses and detections put together (Lin et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from maskrcnn_benchmark.modeling.anchors import AnchorGenerator
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.heads.base import OneStageHead
from maskrcnn_benchmark.modeling.heads.common import require_strides
from maskrcnn_benchmark.modeling.heads.retinanet.loss import RetinaNetLoss
from maskrcnn_benchmark.modeling.heads.retinanet.postprocess import RetinaNetPostProcessor
from maskrcnn_benchmark.modeling.heads.retinanet.targets import BOX_WEIGHTS, RetinaNetOutputs, build_anchors
from maskrcnn_benchmark.modeling.heads.retinanet.towers import RetinaNetTowers
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.registry import HEADS
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.features import FeatureSpecs, common_channels
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.model_input import ModelInput

if TYPE_CHECKING:
    from yacs.config import CfgNode


class RetinaNet(OneStageHead[RetinaNetOutputs]):
    """Children `anchor_generator` and `head`, the towers (parity: the names in published files)."""

    def __init__(
        self,
        anchor_generator: AnchorGenerator,
        towers: RetinaNetTowers,
        loss: RetinaNetLoss,
        post_processor: RetinaNetPostProcessor,
    ) -> None:
        super().__init__()
        self.anchor_generator = anchor_generator
        self.head = towers
        self.loss = loss
        self.post_processor = post_processor

    def forward(self, features: Sequence[Tensor]) -> RetinaNetOutputs:
        """Raw outputs on the feature maps (B, K, H_l, W_l), finest first."""
        return RetinaNetOutputs(*self.head(features))

    def losses(self, outputs: RetinaNetOutputs, inputs: ModelInput) -> dict[str, LossTerm]:
        """Unnormalised `loss_retina_cls`, `loss_retina_reg`; all anchors count, also outside the image."""
        return self.loss(self._anchors(outputs), *outputs.per_anchor(), inputs.ground_truth())

    def predict(self, outputs: RetinaNetOutputs, images: ImageList) -> list[BoxList]:
        """Detections per image, best first: fields `scores`, `labels`."""
        return self.post_processor(self._anchors(outputs), *outputs.per_anchor(), images.image_sizes)

    def _anchors(self, outputs: RetinaNetOutputs) -> list[Tensor]:
        """Per level anchors (n_l, 4)."""
        return self.anchor_generator([(level.shape[-2], level.shape[-1]) for level in outputs.deltas])


@HEADS.register("retinanet")
def build_retinanet(cfg: CfgNode, features: FeatureSpecs) -> RetinaNet:
    """Build the head from MODEL.RETINANET for the feature maps of a backbone."""
    node = cfg.MODEL.RETINANET
    require_strides(features, node.ANCHOR_STRIDES, "MODEL.RETINANET.ANCHOR_STRIDES")
    anchors, box_coder = build_anchors(node), BoxCoder(BOX_WEIGHTS)
    towers = RetinaNetTowers(
        common_channels(features),
        node.NUM_CLASSES - 1,
        anchors.num_anchors_per_location()[0],
        depth=node.NUM_CONVS,
        prior_probability=node.PRIOR_PROB,
    )
    matcher = Matcher(
        node.FG_IOU_THRESHOLD,
        node.BG_IOU_THRESHOLD,
        allow_low_quality=True,
        zero_iou_matches=cfg.MODEL.RPN.ZERO_OVERLAP_MATCHES,
    )
    loss = RetinaNetLoss(
        matcher,
        box_coder,
        gamma=node.LOSS_GAMMA,
        alpha=node.LOSS_ALPHA,
        beta=node.BBOX_REG_BETA,
        regression_weight=node.BBOX_REG_WEIGHT,
    )
    post_processor = RetinaNetPostProcessor(
        box_coder,
        score_thresh=node.INFERENCE_TH,
        pre_nms_top_n=node.PRE_NMS_TOP_N,
        nms_thresh=node.NMS_TH,
        detections_per_img=cfg.TEST.DETECTIONS_PER_IMG,
    )
    return RetinaNet(anchors, towers, loss, post_processor)
