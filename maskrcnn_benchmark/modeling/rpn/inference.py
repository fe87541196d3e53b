"""From head outputs to proposals (core spec 7, "Proposal selection")."""

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
class SelectionSettings:
    """Numbers of the selection in one mode. The first three counts are per level and image.

    `total_top_n` limits all levels together, over the images of the process with `per_batch` (parity),
    else per image; it is not used when there is a single level.
    """

    pre_nms_top_n: int
    post_nms_top_n: int
    total_top_n: int
    per_batch: bool
    nms_thresh: float
    min_size: float

    @classmethod
    def from_cfg(cls, cfg: CfgNode, training: bool) -> SelectionSettings:
        """From MODEL.RPN, the _TRAIN or _TEST keys."""
        node, mode = cfg.MODEL.RPN, "TRAIN" if training else "TEST"
        return cls(
            pre_nms_top_n=node[f"PRE_NMS_TOP_N_{mode}"],
            post_nms_top_n=node[f"POST_NMS_TOP_N_{mode}"],
            total_top_n=node[f"FPN_POST_NMS_TOP_N_{mode}"],
            per_batch=training and node.FPN_POST_NMS_PER_BATCH,
            nms_thresh=node.NMS_THRESH,
            min_size=node.MIN_SIZE,
        )


@dataclass(frozen=True)
class _Candidates:
    """Flat candidates, ordered by image, level, falling logit: boxes (K,4), logits, group and image (K,)."""

    boxes: Tensor
    logits: Tensor
    group: Tensor
    num_levels: int

    def __getitem__(self, index: Tensor) -> _Candidates:
        return _Candidates(self.boxes[index], self.logits[index], self.group[index], self.num_levels)


class ProposalSelector:
    """Chooses proposals of a batch: all images and levels go through one non-maximum suppression call."""

    def __init__(self, box_coder: BoxCoder, train: SelectionSettings, test: SelectionSettings) -> None:
        self.box_coder = box_coder
        self.train = train
        self.test = test

    @torch.no_grad()
    def select(
        self,
        anchors: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        *,
        training: bool,
    ) -> list[BoxList]:
        """Proposals per image with field `objectness` (probabilities), clipped to the image.

        anchors: per level (n_l,4); logits: per level (B,n_l,1); deltas:
        per level (B,n_l,4); image_sizes: (height, width) before padding.
        Order is by logits, so saturated probabilities do not tie.
        Non-finite candidates are dropped in training (the loss guard of the engine reports them) and raise
        UsageError in evaluation.
        """
        settings = self.train if training else self.test
        found = self._candidates(settings, anchors, logits, deltas, image_sizes)
        if not training:
            require_finite(found.boxes, "the proposals of the region proposal network")
            require_finite(found.logits, "the objectness logits of the region proposal network")
        found = found[_usable(found, settings.min_size)]
        if settings.nms_thresh > 0:
            found = found[batched_nms(found.boxes, found.logits, found.group, settings.nms_thresh)]
        found = found[_rank_in_group(found.group, len(image_sizes) * len(anchors)) < settings.post_nms_top_n]
        if len(anchors) > 1 and settings.per_batch:
            found = found[_highest(found.logits, settings.total_top_n)]
        per_image = _split_by_image(found, len(image_sizes))
        if len(anchors) > 1 and not settings.per_batch:
            per_image = [part[_top_sorted(part.logits, settings.total_top_n)] for part in per_image]
        return [_to_boxlist(part, size) for part, size in zip(per_image, image_sizes, strict=True)]

    def _candidates(
        self,
        settings: SelectionSettings,
        anchors: Sequence[Tensor],
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> _Candidates:
        """Highest logits of every level and image, decoded and clipped."""
        chosen_logits, chosen_deltas, chosen_anchors = [], [], []
        for level_anchors, level_logits, level_deltas in zip(anchors, logits, deltas, strict=True):
            count = min(settings.pre_nms_top_n, len(level_anchors))
            top, index = level_logits[..., 0].topk(count, dim=1)
            chosen_logits.append(top)
            chosen_deltas.append(level_deltas.gather(1, index[..., None].expand(-1, -1, 4)))
            chosen_anchors.append(level_anchors[index])
        scores = torch.cat(chosen_logits, dim=1)
        boxes = self.box_coder.decode(torch.cat(chosen_deltas, dim=1), torch.cat(chosen_anchors, dim=1))
        limit = boxes.new_tensor([(w - 1, h - 1, w - 1, h - 1) for h, w in image_sizes])[:, None]
        boxes = torch.minimum(boxes.clamp(min=0), limit)
        sizes = torch.tensor([part.shape[1] for part in chosen_logits], device=scores.device)
        level = torch.repeat_interleave(
            torch.arange(len(anchors), device=scores.device), sizes, output_size=scores.shape[1]
        )
        image = torch.arange(len(image_sizes), device=scores.device)
        group = (image[:, None] * len(anchors) + level).reshape(-1)
        return _Candidates(boxes.reshape(-1, 4), scores.reshape(-1), group, len(anchors))


def _usable(found: _Candidates, min_size: float) -> Tensor:
    """Indices of finite candidates whose sides (inclusive) are at least `min_size`."""
    side = (found.boxes[:, 2:] - found.boxes[:, :2] + 1).amin(dim=1)
    finite = torch.isfinite(found.boxes).all(dim=1) & torch.isfinite(found.logits)
    return (finite & (side >= min_size)).nonzero().flatten()


def _rank_in_group(group: Tensor, num_groups: int) -> Tensor:
    """(K,) position of every entry inside its run of equal group numbers; `group` is ascending."""
    counts = torch.bincount(group, minlength=num_groups)
    start = counts.cumsum(0) - counts
    return torch.arange(len(group), device=group.device) - start[group]


def _highest(logits: Tensor, count: int) -> Tensor:
    """Ascending indices of the `count` highest logits (ties: lower index first)."""
    if len(logits) <= count:
        return torch.arange(len(logits), device=logits.device)
    edge = logits.topk(count).values[-1]
    above, tied = logits > edge, logits == edge
    return (above | (tied & (tied.cumsum(0) <= count - above.sum()))).nonzero().flatten()


def _top_sorted(logits: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest logits, highest first (ties: lower index first)."""
    return logits.argsort(descending=True, stable=True)[:count]


def _split_by_image(found: _Candidates, num_images: int) -> list[_Candidates]:
    image = torch.div(found.group, found.num_levels, rounding_mode="floor")
    counts = torch.bincount(image, minlength=num_images).tolist()
    parts = zip(found.boxes.split(counts), found.logits.split(counts), found.group.split(counts), strict=True)
    return [_Candidates(*part, found.num_levels) for part in parts]


def _to_boxlist(found: _Candidates, image_size: tuple[int, int]) -> BoxList:
    boxlist = BoxList(found.boxes, (image_size[1], image_size[0]), mode="xyxy")
    boxlist.add_field("objectness", found.logits.sigmoid())
    return boxlist


def add_ground_truth(proposals: Sequence[BoxList], targets: Sequence[BoxList]) -> list[BoxList]:
    """Proposals with the ground truth boxes appended, objectness 1, so that every object has a positive."""
    results = []
    for proposal, target in zip(proposals, targets, strict=True):
        boxes = target.xyxy().to(proposal.bbox)
        joined = BoxList(torch.cat((proposal.bbox, boxes)), proposal.size, mode="xyxy")
        objectness = proposal.get_field("objectness")
        joined.add_field("objectness", torch.cat((objectness, objectness.new_ones(len(boxes)))))
        results.append(joined)
    return results
