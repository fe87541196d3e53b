"""What every one-stage head does, so that one detector and one training loop serve all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Generic, TypeVar

from torch import Tensor, nn

from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.structures.boxlist import BoxList

Outputs = TypeVar("Outputs")
"""The head's own dataclass of raw tensors; its docstring gives their shapes."""

ImageSizes = Sequence[tuple[int, int]]
"""(height, width) per image, before padding."""


class OneStageHead(nn.Module, Generic[Outputs]):
    """Contract: `forward` computes, `losses` and `predict` read its outputs; none of them draws numbers.

    Boxes are xyxy in the network input, labels 1..C.
    """

    timed_parts: Mapping[str, str] = MappingProxyType({})
    """Parts of `predict` that `tools/predict.py --fps` clocks by name: dotted path of a callable -> stage."""

    def forward(self, features: Sequence[Tensor]) -> Outputs:
        """Raw outputs on the feature maps (B,C,H_l,W_l), finest first."""
        raise NotImplementedError

    def losses(
        self, outputs: Outputs, targets: Sequence[BoxList], image_sizes: ImageSizes
    ) -> dict[str, LossTerm]:
        """Losses before their division, the same keys in every step, also without ground truth."""
        raise NotImplementedError

    def predict(self, outputs: Outputs, image_sizes: ImageSizes, original_sizes: ImageSizes) -> list[BoxList]:
        """Detections per image, best first, with fields `scores` and `labels`.

        Where the head makes masks: `mask` (n,1,h,w) bool of the image's original size (height, width), and
        `mask_scores` (n,) where masks have scores of their own. Raises UsageError for non-finite outputs.
        """
        raise NotImplementedError
