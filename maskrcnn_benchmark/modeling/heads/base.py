"""The contract of one-stage heads, so that one detector and one training loop serve all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Generic, TypeVar

from torch import Tensor, nn

from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.model_input import ModelInput

Outputs = TypeVar("Outputs")
"""Dataclass of the raw tensors of a head; its docstring gives their shapes."""


class OneStageHead(nn.Module, ABC, Generic[Outputs]):
    """A dense head: `forward` computes, `losses` and `predict` read its outputs; none samples at random.

    Boxes are xyxy in the network input, labels 1..C.
    """

    timed_parts: Mapping[str, str] = MappingProxyType({})
    """Parts of `predict` that `tools/predict.py --fps` clocks by name: dotted path of a callable -> stage."""

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> Outputs:
        """Raw outputs on the feature maps (B, C, H_l, W_l), finest first."""

    @abstractmethod
    def losses(self, outputs: Outputs, inputs: ModelInput) -> dict[str, LossTerm]:
        """Unnormalised losses, the same keys in every iteration, also without ground truth."""

    @abstractmethod
    def predict(self, outputs: Outputs, images: ImageList) -> list[BoxList]:
        """Detections per image, best first, with fields `scores` and `labels`.

        Where the head makes masks: `mask` (n, 1, h, w) bool of the image's original size (height, width), and
        `mask_scores` (n,) where masks have scores of their own. Raises UsageError for non-finite outputs.
        """
