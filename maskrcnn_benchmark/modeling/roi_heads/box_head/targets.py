"""Which proposals the box head trains on, and towards what (core spec 9, LST spec 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.matcher import BETWEEN_THRESHOLDS, Matcher
from maskrcnn_benchmark.modeling.samplers import image_generators, keep_query_class, subsample_labels
from maskrcnn_benchmark.structures.boxlist import BoxList

if TYPE_CHECKING:
    from yacs.config import CfgNode


class BoxTargets:
    """Matches proposals with ground truth and samples a fixed number of them per image."""

    def __init__(
        self,
        matcher: Matcher,
        box_coder: BoxCoder,
        *,
        batch_size_per_image: int,
        positive_fraction: float,
        fallback_positives: int = 10,
    ) -> None:
        self.matcher = matcher
        self.box_coder = box_coder
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.fallback_positives = fallback_positives

    @classmethod
    def from_cfg(cls, cfg: CfgNode, box_coder: BoxCoder) -> BoxTargets:
        """From MODEL.ROI_HEADS and LST.REPLAY.FALLBACK_POSITIVES."""
        node = cfg.MODEL.ROI_HEADS
        return cls(
            Matcher(node.FG_IOU_THRESHOLD, node.BG_IOU_THRESHOLD),
            box_coder,
            batch_size_per_image=node.BATCH_SIZE_PER_IMAGE,
            positive_fraction=node.POSITIVE_FRACTION,
            fallback_positives=cfg.LST.REPLAY.FALLBACK_POSITIVES,
        )

    def assign(self, boxes: Tensor, target: BoxList) -> tuple[Tensor, Tensor]:
        """Labels (N,) of xyxy boxes (N,4) and their ground truth index (N,), 0 where there is none.

        Label: that of the matched object, 0 background, -1 between
        the thresholds. No objects: all background.
        """
        matches = self.matcher.match(target.xyxy().to(boxes), boxes)
        index = matches.clamp(min=0)
        if len(target) == 0:
            return torch.zeros_like(matches), index
        labels = target.get_field("labels").to(boxes.device, torch.int64)[index]
        labels = torch.where(matches < 0, 0, labels)
        return torch.where(matches == BETWEEN_THRESHOLDS, -1, labels), index

    @torch.no_grad()
    def sample(
        self,
        proposals: Sequence[BoxList],
        targets: Sequence[BoxList],
        query_classes: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[BoxList]:
        """Sampled proposals per image in their order, with the fields the losses need.

        Fields: `labels` int64 (n,), `matched_idxs` int64 (n,) into the image's objects,
        `regression_targets` float32 (n,4) (of background rows without meaning), and
        those of the proposals. `query_classes`: one label per image, 0 for ordinary
        sampling; another value leaves only proposals of that class as positives.
        `seeds`: one per image, see image_generators.
        """
        classes = query_classes if query_classes is not None else [0] * len(proposals)
        if len(classes) != len(proposals):
            raise ValueError(f"{len(classes)} query classes for {len(proposals)} images")
        device = proposals[0].bbox.device
        generators = image_generators(seeds, "box", len(proposals), device)
        results = []
        for proposal, target, query_class, source in zip(
            proposals, targets, classes, generators, strict=True
        ):
            labels, index = self.assign(proposal.bbox, target)
            candidates = keep_query_class(labels, int(query_class), self.fallback_positives)
            parts = subsample_labels(candidates, self.batch_size_per_image, self.positive_fraction, source)
            chosen = torch.cat(parts).sort().values
            sampled = proposal[chosen]
            sampled.add_field("labels", labels[chosen])
            sampled.add_field("matched_idxs", index[chosen])
            sampled.add_field("regression_targets", self._deltas(sampled.bbox, target, index[chosen]))
            results.append(sampled)
        return results

    def _deltas(self, boxes: Tensor, target: BoxList, index: Tensor) -> Tensor:
        if len(target) == 0:
            return torch.zeros_like(boxes)
        return self.box_coder.encode(target.xyxy().to(boxes)[index], boxes)
