"""RetinaNet as a one-stage head: anchors, towers, losses and detections put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from maskrcnn_benchmark.modeling.anchors import AnchorGenerator, generate_cell_anchors
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.heads.base import OneStageHead
from maskrcnn_benchmark.modeling.heads.retinanet.loss import LossSettings, RetinaNetLoss
from maskrcnn_benchmark.modeling.heads.retinanet.postprocess import DetectionSettings, RetinaNetPostProcessor
from maskrcnn_benchmark.modeling.heads.retinanet.towers import Towers
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.registry import HEADS
from maskrcnn_benchmark.modeling.rpn.head import flatten_map
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.features import FeatureSpecs, common_channels
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.model_input import ModelInput

if TYPE_CHECKING:
    from yacs.config import CfgNode


@dataclass(frozen=True)
class RetinaNetOutputs:
    """Per level: logits (B, A*classes, H, W) and deltas (B, A*4, H, W), channel = anchor * n + part."""

    logits: list[Tensor]
    deltas: list[Tensor]


class RetinaNet(OneStageHead[RetinaNetOutputs]):
    """Children `anchor_generator` and `head` (parity: the names in published files)."""

    def __init__(
        self,
        anchor_generator: AnchorGenerator,
        towers: Towers,
        loss: RetinaNetLoss,
        post_processor: RetinaNetPostProcessor,
    ) -> None:
        super().__init__()
        self.anchor_generator = anchor_generator
        self.head = towers
        self.loss = loss
        self.post_processor = post_processor

    def forward(self, features: Sequence[Tensor]) -> RetinaNetOutputs:
        """See OneStageHead."""
        return RetinaNetOutputs(*self.head(features))

    def losses(self, outputs: RetinaNetOutputs, inputs: ModelInput) -> dict[str, LossTerm]:
        """`loss_retina_cls`, `loss_retina_reg`; all anchors count, wherever they lie (core spec 12)."""
        return self.loss(*self._per_anchor(outputs), inputs.ground_truth())

    def predict(self, outputs: RetinaNetOutputs, images: ImageList) -> list[BoxList]:
        """See OneStageHead; fields `scores`, `labels`."""
        return self.post_processor(*self._per_anchor(outputs), images.image_sizes)

    def _per_anchor(self, outputs: RetinaNetOutputs) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Per level anchors (n,4), logits (B,n,classes) and deltas (B,n,4): views of channels-last maps."""
        anchors = self.anchor_generator([(d.shape[-2], d.shape[-1]) for d in outputs.deltas])
        anchors_per_cell = outputs.deltas[0].shape[1] // 4
        classes = outputs.logits[0].shape[1] // anchors_per_cell
        logits = [flatten_map(level, classes) for level in outputs.logits]
        return anchors, logits, [flatten_map(level, 4) for level in outputs.deltas]


BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""parity: factors of the regression targets."""


def build_anchors(node: CfgNode) -> AnchorGenerator:
    """From MODEL.RETINANET: every level has its size times OCTAVE^(i / SCALES_PER_OCTAVE), i = 0, 1, ..."""
    steps = [node.OCTAVE ** (i / node.SCALES_PER_OCTAVE) for i in range(node.SCALES_PER_OCTAVE)]
    cells = [
        generate_cell_anchors(stride, [size * step for step in steps], node.ASPECT_RATIOS)
        for stride, size in zip(node.ANCHOR_STRIDES, node.ANCHOR_SIZES, strict=True)
    ]
    return AnchorGenerator(cells, node.ANCHOR_STRIDES, node.STRADDLE_THRESH)


@HEADS.register("retinanet")
def build_retinanet(cfg: CfgNode, features: FeatureSpecs) -> RetinaNet:
    """MODEL.RETINANET on the feature maps of a backbone."""
    node = cfg.MODEL.RETINANET
    anchors, box_coder = build_anchors(node), BoxCoder(BOX_WEIGHTS)
    matcher = Matcher(
        node.FG_IOU_THRESHOLD,
        node.BG_IOU_THRESHOLD,
        allow_low_quality=True,
        zero_iou_matches=cfg.MODEL.RPN.ZERO_OVERLAP_MATCHES,
    )
    towers = Towers(
        common_channels(features),
        node.NUM_CLASSES - 1,
        anchors.num_anchors_per_location()[0],
        depth=node.NUM_CONVS,
        prior_probability=node.PRIOR_PROB,
    )
    return RetinaNet(
        anchors,
        towers,
        RetinaNetLoss(
            matcher,
            box_coder,
            LossSettings(node.LOSS_GAMMA, node.LOSS_ALPHA, node.BBOX_REG_BETA, node.BBOX_REG_WEIGHT),
        ),
        RetinaNetPostProcessor(
            box_coder,
            DetectionSettings(
                node.INFERENCE_TH, node.PRE_NMS_TOP_N, node.NMS_TH, cfg.TEST.DETECTIONS_PER_IMG
            ),
        ),
    )
