"""Class logits and box deltas from RoI features; the cosine classifier and its weight generator.

Deltas are class-major: columns 4*c .. 4*c+3 belong to class c (0 is background), or to background and
foreground when class-agnostic.
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
    """Sibling fully connected layers `cls_score` and `bbox_pred` on feature vectors."""

    def __init__(self, in_channels: int, num_classes: int, *, class_agnostic: bool = False) -> None:
        super().__init__()
        self.cls_score = normal_init(nn.Linear(in_channels, num_classes), std=0.01)
        groups = 2 if class_agnostic else num_classes
        self.bbox_pred = normal_init(nn.Linear(in_channels, groups * 4), std=0.001)

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int) -> FPNPredictor:
        """Build from MODEL.ROI_BOX_HEAD.NUM_CLASSES (with background) and MODEL.CLS_AGNOSTIC_BBOX_REG."""
        return cls(
            in_channels, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES, class_agnostic=cfg.MODEL.CLS_AGNOSTIC_BBOX_REG
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (N, D) to logits (N, C) and deltas (N, 4C) ((N, 8) class-agnostic)."""
        return self.cls_score(x), self.bbox_pred(x)


@BOX_PREDICTORS.register("FastRCNNPredictor")
class FastRCNNPredictor(FPNPredictor):
    """FPNPredictor after global average pooling of feature maps (C4 models)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (N, D, h, w) to logits (N, C) and deltas (N, 4C) ((N, 8) class-agnostic)."""
        return super().forward(x.mean(dim=(2, 3)))


@BOX_PREDICTORS.register("FPNCosinePredictor")
class FPNCosinePredictor(nn.Module):
    """Cosine classifier with a learned scale (Gidaris & Komodakis 2018); boxes after a ReLU.

    Parameters: `scale_cls` (1,); `cls_score.weight` (C, D) without bias, background at index 0 like any other
    class; `bbox_pred`.
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
        """Build from MODEL.ROI_BOX_HEAD.NUM_CLASSES, CLS_AGNOSTIC_BBOX_REG and FEW_SHOT.ScaleCls."""
        return cls(
            in_channels,
            cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES,
            initial_scale=cfg.MODEL.FEW_SHOT.ScaleCls,
            class_agnostic=cfg.MODEL.CLS_AGNOSTIC_BBOX_REG,
        )

    def cosine(self, x: Tensor) -> Tensor:
        """Return unscaled cosines (N, C) float32 of features (N, D) and class weights; norms >= 1e-12.

        Computed in float32 also under autocast: distillation compares small differences.
        """
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(
                F.normalize(x.float(), dim=1, eps=1e-12),
                F.normalize(self.cls_score.weight.float(), dim=1, eps=1e-12),
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (N, D) of either sign to logits (N, C) and deltas (N, 4C) ((N, 8) class-agnostic)."""
        return self.scale_cls * self.cosine(x), self.bbox_pred(F.relu(x))


class MetaWeightGenerator(nn.Module):
    """Generate the classifier weight of a new class from few examples and the weights of known classes.

    Few-shot classification weight generator with attention (Gidaris & Komodakis 2018), as used by
    LST (Hu et al. 2020, arXiv 2004.00900): weight = average_scale * mean(z) + attended_scale * mean(a(z)),
    where z are the normalised features, and a(z) is the mean of the normalised known weights under
    softmax(attention_scale * cosine of `query` z and every known weight). Both scales are vectors (D,). An
    untrained generator gives the mean of the normalised features.
    """

    def __init__(self, dim: int, *, attention_scale: float = 10.0) -> None:
        super().__init__()
        self.average_scale = nn.Parameter(torch.ones(dim))
        self.attended_scale = nn.Parameter(torch.zeros(dim))
        self.attention_scale = nn.Parameter(torch.tensor(float(attention_scale)))
        self.query = nn.Linear(dim, dim, bias=False)
        nn.init.eye_(self.query.weight)

    def forward(self, support: Tensor, known_weights: Tensor) -> Tensor:
        """Map features (S, D) of a class, S >= 1, and weights (B, D) of known classes to its weight (D,)."""
        z, known = F.normalize(support, dim=1), F.normalize(known_weights, dim=1)
        attention = (self.attention_scale * F.normalize(self.query(z), dim=1) @ known.t()).softmax(dim=1)
        attended = (attention @ known).mean(dim=0)
        return self.average_scale * z.mean(dim=0) + self.attended_scale * attended
