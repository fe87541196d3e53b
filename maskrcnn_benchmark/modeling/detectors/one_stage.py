"""The one-stage detector: backbone (with its neck) and one head that follows `modeling.heads.base`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from maskrcnn_benchmark.modeling.detectors.base import Detector
from maskrcnn_benchmark.modeling.heads.base import OneStageHead
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.model_input import ModelInput


class OneStageDetector(Detector):
    """Children `backbone` and `rpn`, which is the head (parity: its name in published files).

    Nothing is sampled, so seeds do not matter.
    """

    def __init__(self, backbone: nn.Module, head: OneStageHead[Any]) -> None:
        super().__init__(backbone)
        self.rpn = head

    def losses(self, inputs: ModelInput) -> dict[str, LossTerm]:
        """Losses of the head."""
        return self.rpn.losses(self.rpn(self.features(inputs.images)), inputs)

    @torch.no_grad()
    def predict(self, images: ImageList) -> list[BoxList]:
        """Detections of the head."""
        return self.rpn.predict(self.rpn(self.features(images)), images)
