"""Keypoint heat maps from region features (core spec 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.conv import kaiming_normal_init
from maskrcnn_benchmark.modeling.registry import KEYPOINT_PREDICTORS

if TYPE_CHECKING:
    from yacs.config import CfgNode


@KEYPOINT_PREDICTORS.register("KeypointRCNNPredictor")
class KeypointRCNNPredictor(nn.Module):
    """Deconvolution `kps_score_lowres` to one map per keypoint, then bilinear upsampling by 2."""

    def __init__(self, in_channels: int, num_keypoints: int) -> None:
        super().__init__()
        layer = nn.ConvTranspose2d(in_channels, num_keypoints, 4, stride=2, padding=1)
        self.kps_score_lowres = kaiming_normal_init(layer)

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int) -> KeypointRCNNPredictor:
        """From MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES, the number of keypoints."""
        return cls(in_channels, cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Region features (N,D,P,P) -> logits (N,K,4P,4P) of the place of every keypoint."""
        return F.interpolate(self.kps_score_lowres(x), scale_factor=2, mode="bilinear", align_corners=False)
