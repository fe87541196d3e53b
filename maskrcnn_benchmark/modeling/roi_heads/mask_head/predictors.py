"""Mask logits from RoI features (He et al. 2017, section 3).

Only the channel of the class at hand is computed: mask logits are the product of that class's weight with
shared features, so memory and time do not depend on the number of classes. `all_logits` returns every
channel, for reference checks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.conv import kaiming_normal_init
from maskrcnn_benchmark.modeling.registry import MASK_PREDICTORS

if TYPE_CHECKING:
    from yacs.config import CfgNode


def mask_logits_of_class(features: Tensor, class_weights: Tensor) -> Tensor:
    """Multiply features (N, K, M, M) with the weight (N, K) of every RoI's class: logits (N, M, M)."""
    count, channels, height, width = features.shape
    product = torch.bmm(
        class_weights.unsqueeze(1).to(features.dtype), features.reshape(count, channels, height * width)
    )
    return product.reshape(count, height, width)


class MaskPredictor(nn.Module):
    """Base class of mask predictors; `class_weights` are transferred weights, for those without their own."""

    def forward(self, x: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Return logits (N, M, M) of classes `labels` (N,) for RoI features (N, D, P, P).

        class_weights: (N, K), one per RoI.
        """
        raise NotImplementedError

    def all_logits(self, x: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Return logits (N, C, M, M) of all classes; class_weights (C, K)."""
        raise NotImplementedError


@MASK_PREDICTORS.register("MaskRCNNConv1x1Predictor")
class MaskRCNNConv1x1Predictor(MaskPredictor):
    """1x1 convolution `mask_fcn_logits` to one channel per class."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.mask_fcn_logits = kaiming_normal_init(nn.Conv2d(in_channels, num_classes, 1))

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int) -> MaskRCNNConv1x1Predictor:
        """Build from MODEL.ROI_BOX_HEAD.NUM_CLASSES (with background)."""
        return cls(in_channels, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES)

    def embed(self, x: Tensor) -> Tensor:
        """Return the features (N, K, M, M) that class weights are multiplied with."""
        return x

    def forward(self, x: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Return logits (N, M, M) of classes `labels` (N,) for RoI features (N, D, P, P)."""
        weight, bias = self.mask_fcn_logits.weight, self.mask_fcn_logits.bias
        assert bias is not None
        logits = mask_logits_of_class(self.embed(x), weight.flatten(1)[labels])
        return logits + bias[labels].to(logits.dtype)[:, None, None]

    def all_logits(self, x: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Return logits (N, C, M, M) of all classes."""
        return self.mask_fcn_logits(self.embed(x))


@MASK_PREDICTORS.register("MaskRCNNC4Predictor")
class MaskRCNNC4Predictor(MaskRCNNConv1x1Predictor):
    """2x2 transposed convolution `conv5_mask` of stride 2, ReLU, then `mask_fcn_logits`."""

    def __init__(self, in_channels: int, num_classes: int, *, hidden: int) -> None:
        nn.Module.__init__(self)
        self.conv5_mask = kaiming_normal_init(nn.ConvTranspose2d(in_channels, hidden, 2, stride=2))
        self.mask_fcn_logits = kaiming_normal_init(nn.Conv2d(hidden, num_classes, 1))

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int) -> MaskRCNNC4Predictor:
        """Build from MODEL.ROI_BOX_HEAD.NUM_CLASSES and the last of MODEL.ROI_MASK_HEAD.CONV_LAYERS."""
        return cls(
            in_channels, cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES, hidden=cfg.MODEL.ROI_MASK_HEAD.CONV_LAYERS[-1]
        )

    def embed(self, x: Tensor) -> Tensor:
        """Return the features (N, K, 2P, 2P) that class weights are multiplied with."""
        return F.relu_(self.conv5_mask(x))


@MASK_PREDICTORS.register("MaskXRCNNC4Predictor")
class MaskXRCNNC4Predictor(MaskPredictor):
    """Mask logits by transferred class weights (Mask^X R-CNN, Hu et al. 2018, section 3).

    `conv5_mask` as in MaskRCNNC4Predictor, without `mask_fcn_logits`. The optional class-agnostic branch
    `MLP_mask` (with `mask_side`) is a fully connected layer from the flattened map to mask_side^2 logits,
    which are added to those of every class.
    """

    def __init__(self, in_channels: int, *, hidden: int, mask_side: int | None = None) -> None:
        super().__init__()
        self.conv5_mask = kaiming_normal_init(nn.ConvTranspose2d(in_channels, hidden, 2, stride=2))
        self.mask_side = mask_side
        if mask_side is not None:
            self.MLP_mask = kaiming_normal_init(nn.Linear(hidden * mask_side**2, mask_side**2))

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int) -> MaskXRCNNC4Predictor:
        """Build from MODEL.ROI_MASK_HEAD: last of CONV_LAYERS, and RESOLUTION with USE_MLPMASK."""
        node = cfg.MODEL.ROI_MASK_HEAD
        return cls(
            in_channels, hidden=node.CONV_LAYERS[-1], mask_side=node.RESOLUTION if node.USE_MLPMASK else None
        )

    def _agnostic(self, features: Tensor) -> Tensor | None:
        """Class-agnostic logits (N, M, M), or None without the branch."""
        if self.mask_side is None:
            return None
        return self.MLP_mask(features.flatten(1)).reshape(len(features), self.mask_side, self.mask_side)

    def forward(self, x: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Return logits (N, M, M) for RoI features (N, D, P, P) and transferred class weights (N, K)."""
        assert class_weights is not None, "MaskXRCNNC4Predictor needs the class weights of bbox2mask"
        features = F.relu_(self.conv5_mask(x))
        logits = mask_logits_of_class(features, class_weights)
        agnostic = self._agnostic(features)
        return logits if agnostic is None else logits + agnostic

    def all_logits(self, x: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Return logits (N, C, M, M) with the transferred weights (C, K) of all classes."""
        assert class_weights is not None, "MaskXRCNNC4Predictor needs the class weights of bbox2mask"
        features = F.relu_(self.conv5_mask(x))
        logits = F.conv2d(features, class_weights[:, :, None, None].to(features.dtype))
        agnostic = self._agnostic(features)
        return logits if agnostic is None else logits + agnostic[:, None]
