"""A toy one-stage family that lives outside the package: one location per object predicts class and box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from maskrcnn_benchmark.config.checks.validators import at_least, fraction
from maskrcnn_benchmark.config.family import ModelFamily, Pitfall, TargetAssignment, UnusedKeys
from maskrcnn_benchmark.layers.losses import sigmoid_focal_loss, smooth_l1_loss
from maskrcnn_benchmark.modeling.checks import require_finite
from maskrcnn_benchmark.modeling.heads.base import OneStageHead
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.features import FeatureSpecs
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.model_input import ModelInput


def toy_section() -> CfgNode:
    """Section MODEL.TOY."""
    node = CfgNode()
    node.NUM_CLASSES = 81  # classes with background
    node.STRIDES = (8,)  # stride of the level that is read
    node.SCORE_TH = 0.0  # minimum score of a detection
    node.BOX_WEIGHT = 1.0  # factor of the box loss
    node.SMOOTH = False  # smooth L1 in place of L1
    node.BETA = 1.0  # where smooth L1 becomes linear
    return node


class ToyHead(OneStageHead[Tensor]):
    """Outputs (B, classes + 4, H, W): class logits, width and height, offset of the centre, in strides."""

    def __init__(self, features: FeatureSpecs, cfg: CfgNode) -> None:
        super().__init__()
        node = cfg.MODEL.TOY
        self.classes, self.stride, self.limit = (
            node.NUM_CLASSES - 1,
            node.STRIDES[0],
            cfg.TEST.DETECTIONS_PER_IMG,
        )
        self.weight, self.beta = node.BOX_WEIGHT, node.BETA if node.SMOOTH else 0.0
        self.threshold = node.SCORE_TH
        self.level = [spec.stride for spec in features].index(self.stride)
        self.conv = nn.Conv2d(features[self.level].channels, self.classes + 4, 3, padding=1)
        nn.init.constant_(self.conv.bias[: self.classes], -2.0)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.conv(features[self.level])

    def losses(self, outputs: Tensor, inputs: ModelInput) -> dict[str, LossTerm]:
        flat, width = outputs.flatten(2).transpose(1, 2), outputs.shape[3]
        labels = flat.new_zeros(flat.shape[:2], dtype=torch.int64)
        boxes = flat.new_zeros((*flat.shape[:2], 4))
        for image, target in enumerate(inputs.ground_truth()):
            xyxy = target.convert("xyxy").bbox / self.stride
            centre, size = (xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]
            cell = centre.floor().long().clamp(min=0)
            index = (cell[:, 1] * width + cell[:, 0]).clamp(max=flat.shape[1] - 1)
            labels[image, index] = target.get_field("labels").to(labels.device)
            boxes[image, index] = torch.cat((size, centre - cell), dim=1)
        positive = labels > 0
        count = int(positive.sum())
        logits = flat[..., : self.classes].flatten(0, 1)
        box = smooth_l1_loss(flat[..., self.classes :][positive], boxes[positive], self.beta)
        return {
            "loss_toy_cls": LossTerm(
                sigmoid_focal_loss(logits, labels.flatten(), gamma=2.0, alpha=0.25), count
            ),
            "loss_toy_box": LossTerm(self.weight * box, count),
        }

    def predict(self, outputs: Tensor, images: ImageList) -> list[BoxList]:
        require_finite(outputs, "the outputs of the toy head")
        return [self._detect(*pair) for pair in zip(outputs.float(), images.image_sizes, strict=True)]

    def _detect(self, maps: Tensor, size: tuple[int, int]) -> BoxList:
        flat, (height, width) = maps.flatten(1), size
        scores, index = flat[: self.classes].sigmoid().flatten().sort(descending=True)
        scores, index = scores[: self.limit], index[: self.limit]
        index = index[scores > self.threshold]
        cell, shape = index % flat.shape[1], flat[self.classes :].t()[index % flat.shape[1]]
        corner = torch.stack((cell % maps.shape[2], cell // maps.shape[2]), dim=1)
        centre, half = corner + shape[:, 2:], shape[:, :2].clamp(min=0.5) / 2
        result = BoxList(torch.cat((centre - half, centre + half), dim=1) * self.stride, (width, height))
        result.add_field("scores", scores[: len(index)])
        result.add_field("labels", index // flat.shape[1] + 1)
        return result.clip_to_image(remove_empty=False)


def build_toy(cfg: CfgNode, features: FeatureSpecs) -> ToyHead:
    """Builder for the HEADS registry."""
    return ToyHead(features, cfg)


def check_toy(cfg: CfgNode) -> None:
    """Cross-key checks of MODEL.TOY."""
    at_least(cfg, "MODEL.TOY.NUM_CLASSES", 2)
    fraction(cfg, "MODEL.TOY.SCORE_TH")


def toy_pitfalls(cfg: CfgNode) -> Iterator[Pitfall]:
    """What the doctor warns of."""
    if cfg.MODEL.TOY.BOX_WEIGHT == 0:
        yield Pitfall("boxes are not trained", ("MODEL.TOY.BOX_WEIGHT",), "set MODEL.TOY.BOX_WEIGHT 1.0")


TOY = ModelFamily(
    name="toy",
    title="Toy",
    targets=TargetAssignment("centres", "MODEL.TOY.STRIDES"),
    necks=("fpn_p6p7", "fpn"),
    section="TOY",
    classes_key="MODEL.TOY.NUM_CLASSES",
    size_multiple=8,
    tensor_keys=(("rpn.conv", "MODEL.TOY.NUM_CLASSES"),),
    defaults=toy_section,
    check=check_toy,
    unused=(
        UnusedKeys(("MODEL.TOY.BETA",), lambda cfg: not cfg.MODEL.TOY.SMOOTH, "MODEL.TOY.SMOOTH is False"),
    ),
    pitfalls=toy_pitfalls,
)


def register(families: Any, heads: Any) -> None:
    """All that a family from outside does: its record and its head, by one name."""
    families(TOY)
    heads.register("toy")(build_toy)
