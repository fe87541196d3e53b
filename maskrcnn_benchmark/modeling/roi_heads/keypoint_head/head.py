"""The keypoint head: region features, predictor, loss, keypoints of detections."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.modeling.checks import require_finite
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.inference import decode_keypoints
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.loss import keypoint_loss, keypoint_targets, usable
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.keypoints import Keypoints
from maskrcnn_benchmark.utils.errors import DataError


class RoIKeypointHead(nn.Module):
    """Children `feature_extractor` (levels, boxes -> maps) and `predictor` (maps -> heat maps)."""

    def __init__(self, feature_extractor: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.feature_extractor = feature_extractor
        self.predictor = predictor

    def logits(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Heat maps (sum n_i, K, M, M) of per-image xyxy boxes (n_i,4)."""
        return self.predictor(self.feature_extractor(features, boxes))

    def train_step(
        self, features: Sequence[Tensor], sampled: Sequence[BoxList], targets: Sequence[BoxList]
    ) -> dict[str, LossTerm]:
        """`loss_kp` over the positives of the box head's sample (fields `labels`, `matched_idxs`).

        Positives whose object has no labelled keypoint inside its own box are left out. Raises DataError when
        the ground truth has no keypoints, or another number of them.
        """
        regions = []
        for sample, target in zip(sampled, targets, strict=True):
            matched = sample.get_field("matched_idxs")
            positive = sample.get_field("labels") > 0
            fit = usable(target).to(positive.device)
            chosen = positive & fit[matched] if len(fit) else positive
            regions.append(sample.copy_with_fields("matched_idxs")[chosen])
        logits = self.logits(features, [region.bbox for region in regions])
        cells, valid = keypoint_targets(regions, targets, logits.shape[-1])
        if len(cells) and cells.shape[1] != logits.shape[1]:
            raise DataError(
                f"objects have {cells.shape[1]} keypoints, but the model predicts {logits.shape[1]}: set "
                f"MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES {cells.shape[1]}"
            )
        return {"loss_kp": keypoint_loss(logits, cells, valid)}

    def detect(self, features: Sequence[Tensor], detections: Sequence[BoxList]) -> list[BoxList]:
        """The detections with fields `keypoints` (Keypoints (n,K,3), visibility 1) and `keypoint_logits`.

        `keypoint_logits` (n,K) float32 is the height of the heat map at each point. Raises UsageError for
        heat maps that are not finite.
        """
        maps = self.logits(features, [d.bbox for d in detections])
        require_finite(maps, "the keypoint heat maps")
        points, best = decode_keypoints(maps, torch.cat([d.bbox for d in detections]))
        counts = [len(d) for d in detections]
        results = []
        for found, own, height in zip(detections, points.split(counts), best.split(counts), strict=True):
            result = found.copy_with_fields(found.fields())
            result.add_field("keypoints", Keypoints(own, found.size, range(own.shape[1])))
            result.add_field("keypoint_logits", height)
            results.append(result)
        return results
