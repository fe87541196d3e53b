"""Convolutions of SipMask: the towers of FCOS, alignment, coefficients and basis masks (spec section 3)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.deform_conv import DeformConv2d
from maskrcnn_benchmark.modeling.conv import normal_init
from maskrcnn_benchmark.modeling.heads.fcos.targets import FCOSOutputs
from maskrcnn_benchmark.modeling.heads.fcos.towers import (
    GROUPS,
    STD,
    Scale,
    TowerStyle,
    class_logits,
    make_tower,
    prediction,
)
from maskrcnn_benchmark.modeling.heads.sipmask.outputs import CELLS, SipMaskOutputs
from maskrcnn_benchmark.modeling.heads.sipmask.rescoring import scoring_layers

OFFSET_GROUPS = 4
"""parity: groups of channels that move together."""
TAPS = 9


class FeatureAlign(nn.Module):
    """Deformable 3x3 convolution whose offsets are a linear map of the predicted distances.

    Children `conv_offset`, `conv_adaption`, `norm` (parity). Without `normalised` the norm is held, because
    published files have it, but neither applied nor trained.
    """

    def __init__(self, channels: int, *, normalised: bool, bias: bool) -> None:
        super().__init__()
        self.normalised = normalised
        self.conv_offset = nn.Conv2d(4, OFFSET_GROUPS * 2 * TAPS, 1, bias=False)
        nn.init.zeros_(self.conv_offset.weight)
        self.conv_adaption = DeformConv2d(channels, channels, 3, padding=1, bias=bias)
        nn.init.normal_(self.conv_adaption.weight, std=STD)
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.norm.requires_grad_(normalised)

    def forward(self, x: Tensor, distances: Tensor) -> Tensor:
        """x (B,C,H,W), distances (B,4,H,W) in strides, whose gradient ends here -> (B,C,H,W)."""
        y = self.conv_adaption(x, self.conv_offset(distances.detach()))
        return F.relu(self.norm(y) if self.normalised else y)


BASIS_LEVELS = 3
"""Feature maps that the basis masks are made from, finest first."""
BASIS_UPSAMPLING = 4
HIDDEN = 512


class SipMaskTowers(nn.Module):
    """Children as published: `cls_tower` (one convolution shorter than `bbox_tower`: the alignment is its
    last), `cls_logits`, `bbox_pred`, `centerness`, `scales`, `feat_align`, `sip_cof`, `sip_mask_lat0`,
    `sip_mask_lat`, and with mask scores `convs_scoring`, `mask_scoring`.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        depth: int,
        levels: int,
        num_basis: int,
        prior_probability: float,
        distances: str,
        centerness_on_boxes: bool,
        style: TowerStyle,
        align_bias: bool,
        rescoring: bool,
    ) -> None:
        """num_classes: without background. distances: "positive" (rectified, in strides), "any" (as they
        come, in strides) or "exponential" (in pixels). style.deformable: of the box tower alone (parity).
        """
        super().__init__()
        self.distances, self.centerness_on_boxes = distances, centerness_on_boxes
        plain = TowerStyle(style.group_norm, style.bias)
        self.cls_tower = make_tower(channels, depth - 1, plain)
        self.bbox_tower = make_tower(channels, depth, style)
        self.cls_logits = class_logits(channels, num_classes, prior_probability)
        self.bbox_pred = prediction(channels, 4)
        self.centerness = prediction(channels, 1)
        self.scales = nn.ModuleList([Scale() for _ in range(levels)])
        self.feat_align = FeatureAlign(channels, normalised=style.group_norm, bias=align_bias)
        self.sip_cof = normal_init(nn.Conv2d(channels, CELLS * CELLS * num_basis, 3, padding=1), 0.001)
        self.sip_mask_lat0 = normal_init(nn.Conv2d(BASIS_LEVELS * channels, HIDDEN, 1), 0.01)
        self.sip_mask_lat = normal_init(nn.Conv2d(HIDDEN, num_basis, 3, padding=1), 0.01)
        self.rescoring = rescoring
        if rescoring:
            self.convs_scoring, self.mask_scoring = scoring_layers(num_classes)

    def forward(self, features: Sequence[Tensor]) -> SipMaskOutputs:
        """Per level (B,C,H,W), finest first -> outputs."""
        logits, distances, centerness, coefficients, boxes = [], [], [], [], []
        for feature, scale in zip(features, self.scales, strict=True):
            classes, towards = self.cls_tower(feature), self.bbox_tower(feature)
            raw = scale(self.bbox_pred(towards)).float()
            if self.distances == "positive":
                raw = F.relu(raw)
            aligned = self.feat_align(classes, raw)
            logits.append(self.cls_logits(aligned))
            coefficients.append(self.sip_cof(aligned))
            centerness.append(self.centerness(towards if self.centerness_on_boxes else classes))
            distances.append(raw.exp() if self.distances == "exponential" else raw)
            boxes.append(towards)
        basis = self.basis_masks(boxes[:BASIS_LEVELS])
        return SipMaskOutputs(FCOSOutputs(logits, distances, centerness), coefficients, basis)

    def basis_masks(self, maps: Sequence[Tensor]) -> Tensor:
        """Box features of the three finest levels (B,C,H_l,W_l) -> (B,K,4*H_0,4*W_0), none negative.

        The published order, upsample, join, convolve 1x1, is worked out level by level before upsampling:
        both are linear, and most of the work is done on small maps.
        """
        size = maps[0].shape[-2:]
        weights = self.sip_mask_lat0.weight.chunk(BASIS_LEVELS, dim=1)
        hidden = F.conv2d(maps[0], weights[0], self.sip_mask_lat0.bias)
        for level, weight in zip(maps[1:], weights[1:], strict=True):
            small = F.conv2d(level, weight)
            hidden = hidden + F.interpolate(small, size=size, mode="bilinear", align_corners=False)
        basis = F.relu(self.sip_mask_lat(F.relu(hidden)))
        sides = [side * BASIS_UPSAMPLING for side in size]
        return F.interpolate(basis, size=sides, mode="bilinear", align_corners=False)
