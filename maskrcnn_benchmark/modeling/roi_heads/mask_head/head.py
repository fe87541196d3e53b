"""Mask head: RoI features, mask logits, loss, masks of detections (He et al. 2017, section 3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.layers.masks import paste_masks
from maskrcnn_benchmark.modeling.checks import require_finite
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.registry import MASK_FEATURE_EXTRACTORS, MASK_PREDICTORS
from maskrcnn_benchmark.modeling.roi_heads import c4 as _c4  # noqa: F401  registers its extractor
from maskrcnn_benchmark.modeling.roi_heads.mask_head import extractors as _extractors  # noqa: F401
from maskrcnn_benchmark.modeling.roi_heads.mask_head.loss import mask_loss, mask_targets
from maskrcnn_benchmark.modeling.roi_heads.mask_head.predictors import MaskPredictor
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.errors import ConfigError

if TYPE_CHECKING:
    from yacs.config import CfgNode

logger = logging.getLogger(__name__)

TRANSFER_PREDICTOR = "MaskXRCNNC4Predictor"

ClassWeights = Callable[[Tensor], Tensor]
"""Labels (N,) -> mask weights (N, K) of their classes, transferred from the box classifier (LST)."""


class RoIMaskHead(nn.Module):
    """Children `feature_extractor` (levels, boxes -> maps) and `predictor` (maps, labels -> logits).

    `paste_threshold` None leaves masks on their M x M grid; a value pastes them into the network input.
    """

    def __init__(
        self,
        feature_extractor: nn.Module,
        predictor: MaskPredictor,
        *,
        resolution: int,
        shares_box_features: bool = False,
        paste_threshold: float | None = None,
    ) -> None:
        super().__init__()
        self.feature_extractor = feature_extractor
        self.predictor = predictor
        self.resolution = resolution
        self.shares_box_features = shares_box_features
        self.paste_threshold = paste_threshold

    @classmethod
    def from_cfg(cls, cfg: CfgNode, in_channels: int, box_feature_extractor: nn.Module) -> RoIMaskHead:
        """Build from MODEL.ROI_MASK_HEAD, for maps of `in_channels` channels.

        With SHARE_BOX_FEATURE_EXTRACTOR the box head's extractor is used (it must return maps: C4 models).
        """
        node = cfg.MODEL.ROI_MASK_HEAD
        if node.SHARE_BOX_FEATURE_EXTRACTOR:
            if cfg.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR != node.FEATURE_EXTRACTOR:
                raise ConfigError(
                    "MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR is True, but the FEATURE_EXTRACTOR of "
                    f"the box head ({cfg.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR}) and of the mask head "
                    f"({node.FEATURE_EXTRACTOR}) differ; set it to False"
                )
            extractor = box_feature_extractor
        else:
            extractor = MASK_FEATURE_EXTRACTORS.get(node.FEATURE_EXTRACTOR).from_cfg(cfg, in_channels)
        return cls(
            extractor,
            MASK_PREDICTORS.get(_predictor_name(cfg)).from_cfg(cfg, extractor.out_channels),
            resolution=node.RESOLUTION,
            shares_box_features=node.SHARE_BOX_FEATURE_EXTRACTOR,
            paste_threshold=node.POSTPROCESS_MASKS_THRESHOLD if node.POSTPROCESS_MASKS else None,
        )

    def losses(
        self,
        features: Sequence[Tensor],
        sampled: Sequence[BoxList],
        targets: Sequence[BoxList],
        box_features: Tensor,
        class_weights: ClassWeights | None = None,
    ) -> dict[str, LossTerm]:
        """Return the unnormalised `loss_mask` of the positive proposals.

        features: per level (B, C, H_l, W_l); sampled: with the fields `labels` and `matched_idxs` of
        ProposalSampler.sample; box_features: RoI features (sum n_i, D, P, P) of `sampled`, used when box and
        mask head share their extractor.
        """
        positive = [(p.get_field("labels") > 0).nonzero().flatten() for p in sampled]
        rois = [
            p.copy_with_fields(("labels", "matched_idxs"))[i] for p, i in zip(sampled, positive, strict=True)
        ]
        labels = torch.cat([r.get_field("labels") for r in rois])
        if self.shares_box_features:
            x = box_features[torch.cat([p.get_field("labels") for p in sampled]) > 0]
        else:
            x = self.feature_extractor(features, [r.bbox for r in rois])
        logits = self._logits(x, labels, class_weights)
        return {"loss_mask": mask_loss(logits, mask_targets(rois, targets, self.resolution))}

    def predict(
        self,
        features: Sequence[Tensor],
        detections: Sequence[BoxList],
        class_weights: ClassWeights | None = None,
    ) -> list[BoxList]:
        """Add field `mask` to detections (fields `scores`, `labels`).

        (n, 1, M, M) float32 probabilities of the predicted class, or with a paste threshold (n, 1, H, W) bool
        in the network input (without padding). Raises UsageError for logits that are not finite.
        """
        labels = torch.cat([d.get_field("labels") for d in detections])
        x = self.feature_extractor(features, [d.bbox for d in detections])
        logits = self._logits(x, labels, class_weights)
        require_finite(logits, "the mask logits")
        masks = logits.float().sigmoid()
        per_image = masks.split([len(d) for d in detections])
        return [self._add_masks(d, m) for d, m in zip(detections, per_image, strict=True)]

    def all_logits(
        self, features: Sequence[Tensor], detections: Sequence[BoxList], class_weights: Tensor | None = None
    ) -> Tensor:
        """Return logits (sum n_i, C, M, M) of all classes for given boxes, for reference checks."""
        return self.predictor.all_logits(
            self.feature_extractor(features, [d.bbox for d in detections]), class_weights
        )

    def _logits(self, x: Tensor, labels: Tensor, class_weights: ClassWeights | None) -> Tensor:
        """Logits (N, M, M) of classes `labels` (N,) for RoI features (N, D, P, P)."""
        logits = self.predictor(x, labels, None if class_weights is None else class_weights(labels))
        if logits.shape[-1] != self.resolution:
            raise ConfigError(
                f"MODEL.ROI_MASK_HEAD.RESOLUTION is {self.resolution}, but the mask predictor returns side "
                f"{logits.shape[-1]} (POOLER_RESOLUTION, or twice that); make them equal"
            )
        return logits

    def _add_masks(self, detections: BoxList, masks: Tensor) -> BoxList:
        result = detections.copy_with_fields(detections.fields())
        if self.paste_threshold is not None:
            width, height = detections.size
            masks = paste_masks(masks, detections.bbox, height, width, self.paste_threshold, 1)
        result.add_field("mask", masks[:, None])
        return result


def _predictor_name(cfg: CfgNode) -> str:
    """Return the predictor's name.

    parity: published LST configs name MaskRCNNC4Predictor, and USE_BBOX2MASK selects MaskXRCNNC4Predictor.
    """
    node = cfg.MODEL.ROI_MASK_HEAD
    key = "MODEL.ROI_MASK_HEAD"
    if node.PREDICTOR == TRANSFER_PREDICTOR and not node.USE_BBOX2MASK:
        raise ConfigError(f"{key}.PREDICTOR {TRANSFER_PREDICTOR} needs {key}.USE_BBOX2MASK True")
    if node.USE_BBOX2MASK and node.PREDICTOR not in (TRANSFER_PREDICTOR, "MaskRCNNC4Predictor"):
        raise ConfigError(
            f"{key}.USE_BBOX2MASK works with PREDICTOR {TRANSFER_PREDICTOR}, not {node.PREDICTOR}"
        )
    if node.USE_MLPMASK and not node.USE_BBOX2MASK:
        raise ConfigError(f"{key}.USE_MLPMASK needs {key}.USE_BBOX2MASK True")
    if node.USE_BBOX2MASK and node.PREDICTOR != TRANSFER_PREDICTOR:
        logger.info(
            "mask predictor %s: transfers mask weights from the classifier (USE_BBOX2MASK)",
            TRANSFER_PREDICTOR,
        )
        return TRANSFER_PREDICTOR
    return node.PREDICTOR
