"""The call that all detectors share: losses in training, detections in evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.modeling.losses import LossTerm, mean_losses
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.class_list import ClassList
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.model_input import Images, ModelInput


class Detector(nn.Module, ABC):
    """Child `backbone` (with its neck); a subclass adds heads and defines `losses` and `predict`.

    `class_list`: the classes of its labels, from a checkpoint or the training data; None where not known.
    """

    class_list: ClassList | None = None

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(
        self, images: Images | ModelInput, targets: Sequence[BoxList] | None = None
    ) -> dict[str, Tensor] | list[BoxList]:
        """Training: dict of scalar losses, same keys in every step. Evaluation: detections per image.

        With several processes every one must take part in a training call: the losses are divided by counts
        of the whole batch, so that their mean over the processes is the loss of one process with all
        images.

        images: normalised float32 images (3, h, w), an ImageList of them, or a ModelInput, which also holds
        the targets and what only some models read. targets: boxes in coordinates of the network input with
        fields `labels` (1..C), `masks` (mask models) and `keypoints` (keypoint models); may be empty lists of
        boxes.
        Detections: boxes in the network input with fields `scores`, `labels`, `mask` (mask models),
        `keypoints` and `keypoint_logits` (keypoint models); RPN-only: proposals with `objectness`, best
        first.
        Raises ValueError without targets in training, UsageError for non-finite outputs in evaluation.
        """
        inputs = ModelInput.of(images, targets)
        if self.training:
            inputs.ground_truth()
            return mean_losses(self.losses(inputs))
        return self.predict(inputs.images)

    def features(self, images: ImageList) -> list[Tensor]:
        """Feature maps (B, C, H_l, W_l), computed channels-last, the fastest layout of convolutions."""
        return self.backbone(images.tensors.contiguous(memory_format=torch.channels_last))

    @abstractmethod
    def losses(self, inputs: ModelInput) -> dict[str, LossTerm]:
        """Unnormalised losses, the same keys in every iteration."""

    @abstractmethod
    def predict(self, images: ImageList) -> list[BoxList]:
        """Detections per image."""
