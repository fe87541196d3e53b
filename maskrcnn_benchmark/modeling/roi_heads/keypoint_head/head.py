"""Keypoint head: RoI features, heat map logits, loss, keypoints of detections (He et al. 2017, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.checks import require_finite
from maskrcnn_benchmark.modeling.conv import conv_norm_relu, kaiming_normal_init
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.poolers import Pooler
from maskrcnn_benchmark.modeling.registry import KEYPOINT_FEATURE_EXTRACTORS, KEYPOINT_PREDICTORS
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.inference import heatmaps_to_keypoints
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.loss import (
    has_keypoint_in_box,
    keypoint_loss,
    keypoint_targets,
)
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.keypoints import Keypoints
from maskrcnn_benchmark.utils.errors import ConfigError, DataError

if TYPE_CHECKING:
    from yacs.config import CfgNode


@KEYPOINT_FEATURE_EXTRACTORS.register("KeypointRCNNFeatureExtractor")
class KeypointRCNNFeatureExtractor(nn.Module):
    """RoIAlign and 3x3 convolutions `conv_fcn1`, ... with ReLU."""

    def __init__(self, in_channels: int, pooler: Pooler, conv_channels: Sequence[int]) -> None:
        super().__init__()
        self.pooler = pooler
        self.num_convs = len(conv_channels)
        self.out_channels = in_channels
        for i, channels in enumerate(conv_channels, start=1):
            layer = conv_norm_relu(self.out_channels, channels, 3, relu_init=True)
            self.add_module(f"conv_fcn{i}", layer)
            self.out_channels = channels

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int) -> KeypointRCNNFeatureExtractor:
        """Build from MODEL.ROI_KEYPOINT_HEAD: pooling keys, CONV_LAYERS."""
        node = cfg.MODEL.ROI_KEYPOINT_HEAD
        return cls(in_channels, Pooler.from_cfg(node), node.CONV_LAYERS)

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Return maps (sum n_i, out_channels, P, P) of xyxy boxes (n_i, 4) on levels (B, C, H_l, W_l)."""
        x = self.pooler(features, boxes)
        for i in range(1, self.num_convs + 1):
            x = F.relu_(self.get_submodule(f"conv_fcn{i}")(x))
        return x


@KEYPOINT_PREDICTORS.register("KeypointRCNNPredictor")
class KeypointRCNNPredictor(nn.Module):
    """Transposed convolution `kps_score_lowres` to one map per keypoint, then bilinear upsampling by 2."""

    def __init__(self, in_channels: int, num_keypoints: int) -> None:
        super().__init__()
        layer = nn.ConvTranspose2d(in_channels, num_keypoints, 4, stride=2, padding=1)
        self.kps_score_lowres = kaiming_normal_init(layer)

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int) -> KeypointRCNNPredictor:
        """Build from MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES, the number of keypoints."""
        return cls(in_channels, cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Map RoI features (N, D, P, P) to heat map logits (N, K, 4P, 4P)."""
        return F.interpolate(self.kps_score_lowres(x), scale_factor=2, mode="bilinear", align_corners=False)


class RoIKeypointHead(nn.Module):
    """Children `feature_extractor` (levels, boxes -> maps) and `predictor` (maps -> heat map logits)."""

    def __init__(self, feature_extractor: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.feature_extractor = feature_extractor
        self.predictor = predictor

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int) -> RoIKeypointHead:
        """Build from MODEL.ROI_KEYPOINT_HEAD, for maps of `in_channels` channels.

        Raises ConfigError for SHARE_BOX_FEATURE_EXTRACTOR: no extractor serves both heads.
        """
        node = cfg.MODEL.ROI_KEYPOINT_HEAD
        if node.SHARE_BOX_FEATURE_EXTRACTOR:
            raise ConfigError(
                "MODEL.ROI_KEYPOINT_HEAD.SHARE_BOX_FEATURE_EXTRACTOR is True, but the keypoint head needs "
                "its own extractor; set it to False"
            )
        extractor = KEYPOINT_FEATURE_EXTRACTORS.get(node.FEATURE_EXTRACTOR).from_cfg(cfg, in_channels)
        predictor = KEYPOINT_PREDICTORS.get(node.PREDICTOR).from_cfg(cfg, extractor.out_channels)
        return cls(extractor, predictor)

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Return heat map logits (sum n_i, K, M, M) of xyxy boxes (n_i, 4) on levels (B, C, H_l, W_l)."""
        return self.predictor(self.feature_extractor(features, boxes))

    def losses(
        self, features: Sequence[Tensor], sampled: Sequence[BoxList], targets: Sequence[BoxList]
    ) -> dict[str, LossTerm]:
        """Return the unnormalised `loss_kp` of the positive proposals.

        features: per level (B, C, H_l, W_l); sampled: with the fields `labels` and `matched_idxs` of
        ProposalSampler.sample. Positives whose object has no labelled keypoint inside its own box are left
        out. Raises DataError when the ground truth has no keypoints, or another number of them.
        """
        rois = []
        for sample, target in zip(sampled, targets, strict=True):
            matched = sample.get_field("matched_idxs")
            positive = sample.get_field("labels") > 0
            labelled = has_keypoint_in_box(target).to(positive.device)
            keep = positive & labelled[matched] if len(labelled) else positive
            rois.append(sample.copy_with_fields("matched_idxs")[keep])
        logits = self(features, [r.bbox for r in rois])
        index, valid = keypoint_targets(rois, targets, logits.shape[-1])
        if len(index) and index.shape[1] != logits.shape[1]:
            raise DataError(
                f"objects have {index.shape[1]} keypoints, but the model predicts {logits.shape[1]}: set "
                f"MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES {index.shape[1]}"
            )
        return {"loss_kp": keypoint_loss(logits, index, valid)}

    def predict(self, features: Sequence[Tensor], detections: Sequence[BoxList]) -> list[BoxList]:
        """Add fields `keypoints` (Keypoints (n, K, 3), visibility 1) and `keypoint_logits` to detections.

        `keypoint_logits` (n, K) float32 is the heat map logit at each keypoint. Raises UsageError for heat
        maps that are not finite.
        """
        boxes = [d.bbox for d in detections]
        heatmaps = self(features, boxes)
        require_finite(heatmaps, "the keypoint heat maps")
        points, logits = heatmaps_to_keypoints(heatmaps, torch.cat(boxes))
        counts = [len(b) for b in boxes]
        results = []
        for boxlist, image_points, image_logits in zip(
            detections, points.split(counts), logits.split(counts), strict=True
        ):
            result = boxlist.copy_with_fields(boxlist.fields())
            num_keypoints = image_points.shape[1]
            result.add_field("keypoints", Keypoints(image_points, boxlist.size, range(num_keypoints)))
            result.add_field("keypoint_logits", image_logits)
            results.append(result)
        return results
