"""Proposal selection (Ren et al. 2015, section 3.3; with FPN: Lin et al. 2017, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maskrcnn_benchmark.layers.nms import batched_nms
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.checks import require_finite
from maskrcnn_benchmark.structures.boxlist import BoxList

if TYPE_CHECKING:
    from yacs.config import CfgNode


@dataclass(frozen=True)
class _Candidates:
    """Flat candidates by image, level, descending logit: boxes (K, 4), logits (K,), group (K,).

    `group` is image * num_levels + level.
    """

    boxes: Tensor
    logits: Tensor
    group: Tensor
    num_levels: int

    def __getitem__(self, index: Tensor) -> _Candidates:
        return _Candidates(self.boxes[index], self.logits[index], self.group[index], self.num_levels)


class ProposalSelector:
    """Select proposals: top-k per level, clipping, NMS per level, top-k over all levels.

    One NMS call serves all images and levels. `pre_nms_top_n` and `post_nms_top_n` count per level and image.
    `total_top_n` limits all levels together, over the images of the rank with `per_batch` (parity), else per
    image; it is not used when there is a single level. Boxes with a side (inclusive) below `min_size` are
    dropped. Non-finite candidates are dropped with `drop_non_finite` (training, where the finite check of
    the loop reports them), else raise UsageError.
    """

    def __init__(
        self,
        box_coder: BoxCoder,
        *,
        pre_nms_top_n: int,
        post_nms_top_n: int,
        total_top_n: int,
        per_batch: bool,
        nms_thresh: float,
        min_size: float,
        drop_non_finite: bool,
    ) -> None:
        self.box_coder = box_coder
        self.pre_nms_top_n = pre_nms_top_n
        self.post_nms_top_n = post_nms_top_n
        self.total_top_n = total_top_n
        self.per_batch = per_batch
        self.nms_thresh = nms_thresh
        self.min_size = min_size
        self.drop_non_finite = drop_non_finite

    @classmethod
    def from_cfg(cls, cfg: CfgNode, box_coder: BoxCoder, *, training: bool) -> ProposalSelector:
        """Build from the _TRAIN or _TEST keys of MODEL.RPN."""
        node, mode = cfg.MODEL.RPN, "TRAIN" if training else "TEST"
        return cls(
            box_coder,
            pre_nms_top_n=node[f"PRE_NMS_TOP_N_{mode}"],
            post_nms_top_n=node[f"POST_NMS_TOP_N_{mode}"],
            total_top_n=node[f"FPN_POST_NMS_TOP_N_{mode}"],
            per_batch=training and node.FPN_POST_NMS_PER_BATCH,
            nms_thresh=node.NMS_THRESH,
            min_size=node.MIN_SIZE,
            drop_non_finite=training,
        )

    @torch.no_grad()
    def select(
        self,
        anchors: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[BoxList]:
        """Return proposals per image with field `objectness` (probabilities), clipped to the image.

        anchors: per level (N_l, 4); logits: per level (B, N_l, 1); deltas: per level (B, N_l, 4);
        image_sizes: (height, width) before padding. Candidates are ordered by logits, so that saturated
        probabilities do not tie.
        """
        candidates = self._decode_top(anchors, logits, deltas, image_sizes)
        if not self.drop_non_finite:
            require_finite(candidates.boxes, "the proposals of the region proposal network")
            require_finite(candidates.logits, "the objectness logits of the region proposal network")
        candidates = candidates[_valid(candidates, self.min_size)]
        if self.nms_thresh > 0:
            keep = batched_nms(candidates.boxes, candidates.logits, candidates.group, self.nms_thresh)
            candidates = candidates[keep]
        rank = _rank_in_group(candidates.group, len(image_sizes) * len(anchors))
        candidates = candidates[rank < self.post_nms_top_n]
        if len(anchors) > 1 and self.per_batch:
            candidates = candidates[_top_in_order(candidates.logits, self.total_top_n)]
        per_image = _split_by_image(candidates, len(image_sizes))
        if len(anchors) > 1 and not self.per_batch:
            per_image = [part[_top_sorted(part.logits, self.total_top_n)] for part in per_image]
        return [_to_boxlist(part, size) for part, size in zip(per_image, image_sizes, strict=True)]

    def _decode_top(
        self,
        anchors: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> _Candidates:
        """Decode and clip the `pre_nms_top_n` highest logits of every level and image."""
        top_logits, top_deltas, top_anchors = [], [], []
        for level_anchors, level_logits, level_deltas in zip(anchors, logits, deltas, strict=True):
            count = min(self.pre_nms_top_n, len(level_anchors))
            values, index = level_logits[..., 0].topk(count, dim=1)
            top_logits.append(values)
            top_deltas.append(level_deltas.gather(1, index[..., None].expand(-1, -1, 4)))
            top_anchors.append(level_anchors[index])
        scores = torch.cat(top_logits, dim=1)
        boxes = self.box_coder.decode(torch.cat(top_deltas, dim=1), torch.cat(top_anchors, dim=1))
        limit = boxes.new_tensor([(w - 1, h - 1, w - 1, h - 1) for h, w in image_sizes])[:, None]
        boxes = torch.minimum(boxes.clamp(min=0), limit)
        sizes = torch.tensor([part.shape[1] for part in top_logits], device=scores.device)
        level = torch.repeat_interleave(
            torch.arange(len(anchors), device=scores.device), sizes, output_size=scores.shape[1]
        )
        image = torch.arange(len(image_sizes), device=scores.device)
        group = (image[:, None] * len(anchors) + level).reshape(-1)
        return _Candidates(boxes.reshape(-1, 4), scores.reshape(-1), group, len(anchors))


def _valid(candidates: _Candidates, min_size: float) -> Tensor:
    """Indices (int64) of finite candidates whose sides (inclusive) are at least `min_size`."""
    side = (candidates.boxes[:, 2:] - candidates.boxes[:, :2] + 1).amin(dim=1)
    finite = torch.isfinite(candidates.boxes).all(dim=1) & torch.isfinite(candidates.logits)
    return (finite & (side >= min_size)).nonzero().flatten()


def _rank_in_group(group: Tensor, num_groups: int) -> Tensor:
    """Position (K,) of every candidate in its group; `group` (K,) is ascending."""
    counts = torch.bincount(group, minlength=num_groups)
    start = counts.cumsum(0) - counts
    return torch.arange(len(group), device=group.device) - start[group]


def _top_in_order(logits: Tensor, count: int) -> Tensor:
    """Ascending indices of the `count` highest logits (K,); ties keep the lower index."""
    if len(logits) <= count:
        return torch.arange(len(logits), device=logits.device)
    threshold = logits.topk(count).values[-1]
    above, tied = logits > threshold, logits == threshold
    return (above | (tied & (tied.cumsum(0) <= count - above.sum()))).nonzero().flatten()


def _top_sorted(logits: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest logits (K,) in descending order; ties keep the lower index first."""
    return logits.argsort(descending=True, stable=True)[:count]


def _split_by_image(candidates: _Candidates, num_images: int) -> list[_Candidates]:
    image = torch.div(candidates.group, candidates.num_levels, rounding_mode="floor")
    counts = torch.bincount(image, minlength=num_images).tolist()
    per_image = zip(
        candidates.boxes.split(counts),
        candidates.logits.split(counts),
        candidates.group.split(counts),
        strict=True,
    )
    return [_Candidates(*part, candidates.num_levels) for part in per_image]


def _to_boxlist(candidates: _Candidates, image_size: tuple[int, int]) -> BoxList:
    boxlist = BoxList(candidates.boxes, (image_size[1], image_size[0]), mode="xyxy")
    boxlist.add_field("objectness", candidates.logits.sigmoid())
    return boxlist


def add_ground_truth(proposals: Sequence[BoxList], targets: Sequence[BoxList]) -> list[BoxList]:
    """Append the ground truth boxes, objectness 1, so that every object has a positive proposal."""
    results = []
    for proposal, target in zip(proposals, targets, strict=True):
        boxes = target.xyxy().to(proposal.bbox)
        joined = BoxList(torch.cat((proposal.bbox, boxes)), proposal.size, mode="xyxy")
        objectness = proposal.get_field("objectness")
        joined.add_field("objectness", torch.cat((objectness, objectness.new_ones(len(boxes)))))
        results.append(joined)
    return results
