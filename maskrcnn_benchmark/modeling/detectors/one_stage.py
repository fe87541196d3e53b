"""The one-stage detector: backbone (body and neck) and one head that follows `modeling.heads.contract`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.modeling.distill import DistillBatch
from maskrcnn_benchmark.modeling.heads.base import OneStageHead
from maskrcnn_benchmark.modeling.losses import mean_losses
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList, to_image_list
from maskrcnn_benchmark.utils.errors import UsageError


class OneStageDetector(nn.Module):
    """Children `backbone` and `rpn`, which is the head (parity: its name in published files)."""

    def __init__(self, backbone: nn.Module, head: OneStageHead[Any]) -> None:
        super().__init__()
        self.backbone = backbone
        self.rpn = head

    def forward(
        self,
        images: ImageList | Sequence[Tensor] | Tensor,
        targets: Sequence[BoxList] | None = None,
        *,
        query_classes: Sequence[int] | None = None,
        distill: DistillBatch | None = None,
        seeds: Sequence[int] | None = None,
    ) -> dict[str, Tensor] | list[BoxList]:
        """Training: dict of scalar losses, same keys in every step. Evaluation: detections per image.

        The call is that of `GeneralizedRCNN`, with what it says on processes, images and targets; nothing
        is drawn, so `seeds` does not matter. Raises ValueError without targets in training, UsageError for
        non-finite outputs in evaluation and for the arguments of long-tail training, which needs region
        heads.
        """
        if (query_classes is not None and any(query_classes)) or distill is not None:
            raise UsageError(
                "training in phases (LST) needs a two-stage model; set MODEL.RETINANET_ON, FCOS_ON and "
                "SIPMASK_ON False, or MODEL.QRY_BALANCE and MODEL.USE_DISTILL False"
            )
        batch = to_image_list(images)
        if not self.training:
            return self._detections(batch)
        if targets is None:
            raise ValueError("targets are needed in training mode; call model.eval() for detection")
        if len(targets) != len(batch):
            raise ValueError(f"{len(batch)} images but {len(targets)} targets")
        return mean_losses(self.rpn.losses(self._outputs(batch), targets, batch.image_sizes))

    def _outputs(self, images: ImageList) -> Any:
        """The head's outputs; maps are computed channels-last: the layout of fast convolutions."""
        return self.rpn(self.backbone(images.tensors.contiguous(memory_format=torch.channels_last)))

    @torch.no_grad()
    def _detections(self, images: ImageList) -> list[BoxList]:
        return self.rpn.predict(self._outputs(images), images.image_sizes, images.original_sizes)
