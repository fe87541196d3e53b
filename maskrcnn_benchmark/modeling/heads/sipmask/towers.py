"""Convolutions of SipMask: towers, feature alignment, coefficients, basis masks and mask scores.

Cao et al. 2020, section 3; the mask scores are those of SipMask++ in the published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.deform_conv import DeformConv2d
from maskrcnn_benchmark.modeling.conv import kaiming_normal_init, normal_init
from maskrcnn_benchmark.modeling.heads.fcos.targets import FCOSOutputs
from maskrcnn_benchmark.modeling.heads.fcos.towers import (
    GROUPS,
    STD,
    Scale,
    class_conv,
    conv_tower,
    output_conv,
)
from maskrcnn_benchmark.modeling.heads.sipmask.targets import GRID, SipMaskOutputs

BASIS_LEVELS = 3
"""Feature maps that the basis masks are made from, finest first."""
BASIS_UPSAMPLING = 4
HIDDEN = 512
OFFSET_GROUPS = 4
"""parity: groups of channels that share their offsets."""
TAPS = 9

SCORE_WIDTHS = (1, 16, 16, 16, 32, 64, 128)
MIN_PLANE = 127
"""Side that a mask plane needs so that six convolutions of stride 2 without padding leave a value."""


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
        group_norm: bool,
        bias: bool,
        align_bias: bool,
        deformable: bool,
        rescoring: bool,
    ) -> None:
        """num_classes: without background. distances: "positive" (rectified, in strides), "any" (as they
        come, in strides) or "exponential" (in pixels). bias: of the convolutions of the towers. deformable:
        of the last convolution of the box tower, not of the class tower (parity). rescoring: with mask
        scores.
        """
        super().__init__()
        self.distances, self.centerness_on_boxes = distances, centerness_on_boxes
        self.cls_tower = conv_tower(channels, depth - 1, group_norm=group_norm, bias=bias)
        self.bbox_tower = conv_tower(channels, depth, group_norm=group_norm, bias=bias, deformable=deformable)
        self.cls_logits = class_conv(channels, num_classes, prior_probability)
        self.bbox_pred = output_conv(channels, 4)
        self.centerness = output_conv(channels, 1)
        self.scales = nn.ModuleList([Scale() for _ in range(levels)])
        self.feat_align = FeatureAlign(channels, normalised=group_norm, bias=align_bias)
        self.sip_cof = normal_init(nn.Conv2d(channels, GRID * GRID * num_basis, 3, padding=1), 0.001)
        self.sip_mask_lat0 = normal_init(nn.Conv2d(BASIS_LEVELS * channels, HIDDEN, 1), 0.01)
        self.sip_mask_lat = normal_init(nn.Conv2d(HIDDEN, num_basis, 3, padding=1), 0.01)
        self.rescoring = rescoring
        if rescoring:
            self.convs_scoring = nn.ModuleList(
                [kaiming_normal_init(nn.Conv2d(a, b, 3, stride=2)) for a, b in pairwise(SCORE_WIDTHS)]
            )
            self.mask_scoring = normal_init(nn.Conv2d(SCORE_WIDTHS[-1], num_classes, 1), 0.001)

    @property
    def in_strides(self) -> bool:
        """Whether distances are in strides of their level, not in pixels."""
        return self.distances != "exponential"

    def forward(self, features: Sequence[Tensor]) -> SipMaskOutputs:
        """Raw outputs on the feature maps (B, K, H_l, W_l), finest first."""
        logits, distances, centerness, coefficients, boxes = [], [], [], [], []
        for feature, scale in zip(features, self.scales, strict=True):
            class_features, box_features = self.cls_tower(feature), self.bbox_tower(feature)
            raw = scale(self.bbox_pred(box_features)).float()
            if self.distances == "positive":
                raw = F.relu(raw)
            aligned = self.feat_align(class_features, raw)
            logits.append(self.cls_logits(aligned))
            coefficients.append(self.sip_cof(aligned))
            centerness.append(self.centerness(box_features if self.centerness_on_boxes else class_features))
            distances.append(raw if self.in_strides else raw.exp())
            boxes.append(box_features)
        basis = self.basis_masks(boxes[:BASIS_LEVELS])
        return SipMaskOutputs(FCOSOutputs(logits, distances, centerness), coefficients, basis)

    def basis_masks(self, maps: Sequence[Tensor]) -> Tensor:
        """Basis masks (B, K, 4*H_0, 4*W_0), none negative, of box features (B, C, H_l, W_l) of three levels.

        The published order, upsample, concatenate, convolve 1x1, is computed level by level before the
        upsampling: both are linear, and most of the work is done on small maps.
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

    def score_masks(self, planes: Tensor) -> Tensor:
        """Expected IoUs (n, C), none negative, of soft masks (n, h, w) that are zero outside their boxes.

        Raises ValueError for planes smaller than MIN_PLANE.
        """
        if min(planes.shape[1:]) < MIN_PLANE:
            raise ValueError(
                f"mask scores need planes of at least {MIN_PLANE} x {MIN_PLANE} (images of twice that), got "
                f"{tuple(planes.shape[1:])}; use larger images or MODEL.SIPMASK.RESCORING False"
            )
        x = planes[:, None]
        for conv in self.convs_scoring:
            x = F.relu(conv(x))
        return F.relu(self.mask_scoring(x)).amax(dim=(2, 3))

    def scoring_parameters(self) -> list[nn.Parameter]:
        """Parameters that the loss of the mask scores trains."""
        return [*self.convs_scoring.parameters(), *self.mask_scoring.parameters()]


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
        """Align x (B, C, H, W) with distances (B, 4, H, W) in strides, whose gradient stops here."""
        y = self.conv_adaption(x, self.conv_offset(distances.detach()))
        return F.relu(self.norm(y) if self.normalised else y)
