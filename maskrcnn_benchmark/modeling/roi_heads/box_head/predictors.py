"""Class logits and box deltas from region features (core spec 9, LST spec 5).

Deltas are class-major: columns 4*c .. 4*c+3 belong to class c (0
background), or to background and foreground when class-agnostic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.conv import normal_init
from maskrcnn_benchmark.modeling.registry import BOX_PREDICTORS

if TYPE_CHECKING:
    from yacs.config import CfgNode


@BOX_PREDICTORS.register("FPNPredictor")
class FPNPredictor(nn.Module):
    """Two fully connected layers, `cls_score` and `bbox_pred`, on vectors."""

    def __init__(self, in_channels: int, num_classes: int, *, class_agnostic: bool = False) -> None:
        super().__init__()
        self.cls_score = normal_init(nn.Linear(in_channels, num_classes), std=0.01)
        groups = 2 if class_agnostic else num_classes
        self.bbox_pred = normal_init(nn.Linear(in_channels, groups * 4), std=0.001)

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int) -> FPNPredictor:
        """From MODEL.ROI_BOX_HEAD.NUM_CLASSES (with background) and MODEL.CLS_AGNOSTIC_BBOX_REG."""
        return cls(
            in_channels, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES, class_agnostic=cfg.MODEL.CLS_AGNOSTIC_BBOX_REG
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N,D) -> logits (N,C) and deltas (N,4C) ((N,8) class-agnostic)."""
        return self.cls_score(x), self.bbox_pred(x)


@BOX_PREDICTORS.register("FastRCNNPredictor")
class FastRCNNPredictor(FPNPredictor):
    """The same after averaging maps over space (C4 models)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N,D,h,w) -> logits (N,C) and deltas (N,4C) ((N,8) class-agnostic)."""
        return super().forward(x.mean(dim=(2, 3)))


@BOX_PREDICTORS.register("FPNCosinePredictor")
class FPNCosinePredictor(nn.Module):
    """Cosine classifier with a learned scale; boxes from the rectified features (Gidaris & Komodakis 2018).

    `scale_cls` (1,), `cls_score.weight` (C,D) without bias (row 0,
    background, is an ordinary row), `bbox_pred`.
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, initial_scale: float, class_agnostic: bool = False
    ) -> None:
        super().__init__()
        self.scale_cls = nn.Parameter(torch.full((1,), float(initial_scale)))
        self.cls_score = normal_init(nn.Linear(in_channels, num_classes, bias=False), std=0.01)
        groups = 2 if class_agnostic else num_classes
        self.bbox_pred = normal_init(nn.Linear(in_channels, groups * 4), std=0.001)

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int) -> FPNCosinePredictor:
        """From MODEL.ROI_BOX_HEAD.NUM_CLASSES, MODEL.CLS_AGNOSTIC_BBOX_REG and MODEL.FEW_SHOT.ScaleCls."""
        return cls(
            in_channels,
            cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES,
            initial_scale=cfg.MODEL.FEW_SHOT.ScaleCls,
            class_agnostic=cfg.MODEL.CLS_AGNOSTIC_BBOX_REG,
        )

    def cosine(self, x: Tensor) -> Tensor:
        """Unscaled cosines (N,C) float32 of features (N,D) with the class rows; norms are at least 1e-12.

        Computed in float32 also under autocast: distillation compares small differences.
        """
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(
                F.normalize(x.float(), dim=1, eps=1e-12),
                F.normalize(self.cls_score.weight.float(), dim=1, eps=1e-12),
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N,D) of either sign -> logits (N,C) and deltas (N,4C) ((N,8) class-agnostic)."""
        return self.scale_cls * self.cosine(x), self.bbox_pred(F.relu(x))
