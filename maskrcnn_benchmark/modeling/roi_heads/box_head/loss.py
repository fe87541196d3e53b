"""Proposal sampling, losses and distillation of the box head (Fast R-CNN, Girshick 2015, section 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.layers.losses import smooth_l1_loss
from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.losses import LossTerm
from maskrcnn_benchmark.modeling.matcher import BETWEEN_THRESHOLDS, Matcher
from maskrcnn_benchmark.modeling.samplers import image_generators, keep_query_class, subsample_labels
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.utils.errors import DataError

if TYPE_CHECKING:
    from yacs.config import CfgNode

SMOOTH_L1_BETA = 1.0
"""parity: |difference| at which smooth L1 turns from quadratic to linear."""


class ProposalSampler:
    """Label proposals by IoU with the ground truth and sample a fixed number per image."""

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
    def from_cfg(cls, cfg: CfgNode, box_coder: BoxCoder) -> ProposalSampler:
        """Build from MODEL.ROI_HEADS and LST.REPLAY.FALLBACK_POSITIVES."""
        node = cfg.MODEL.ROI_HEADS
        return cls(
            Matcher(node.FG_IOU_THRESHOLD, node.BG_IOU_THRESHOLD),
            box_coder,
            batch_size_per_image=node.BATCH_SIZE_PER_IMAGE,
            positive_fraction=node.POSITIVE_FRACTION,
            fallback_positives=cfg.LST.REPLAY.FALLBACK_POSITIVES,
        )

    def label_boxes(self, boxes: Tensor, target: BoxList) -> tuple[Tensor, Tensor]:
        """Return labels int64 (N,) of xyxy boxes (N, 4) and the index (N,) of their ground truth, 0 for none.

        Labels: that of the matched object, 0 background, -1 ignored (IoU between the thresholds). Without
        objects all boxes are background.
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
        """Sample proposals per image, in their order, and compute regression targets.

        Fields of the result: `labels` int64 (n,), `matched_idxs` int64 (n,) into the objects of the image,
        `regression_targets` float32 (n, 4) (meaningless for background), and those of the proposals.
        `query_classes`: one label per image, 0 for ordinary sampling; another value leaves only proposals of
        that class as positives. `seeds`: one per image, see image_generators.
        """
        classes = query_classes if query_classes is not None else [0] * len(proposals)
        if len(classes) != len(proposals):
            raise ValueError(f"{len(classes)} query classes for {len(proposals)} images")
        device = proposals[0].bbox.device
        generators = image_generators(seeds, "box", len(proposals), device)
        results = []
        for proposal, target, query_class, generator in zip(
            proposals, targets, classes, generators, strict=True
        ):
            labels, index = self.label_boxes(proposal.bbox, target)
            query_labels = keep_query_class(labels, int(query_class), self.fallback_positives)
            positive, negative = subsample_labels(
                query_labels, self.batch_size_per_image, self.positive_fraction, generator
            )
            keep = torch.cat((positive, negative)).sort().values
            sampled = proposal[keep]
            sampled.add_field("labels", labels[keep])
            sampled.add_field("matched_idxs", index[keep])
            sampled.add_field("regression_targets", self._encode(sampled.bbox, target, index[keep]))
            results.append(sampled)
        return results

    def _encode(self, boxes: Tensor, target: BoxList, index: Tensor) -> Tensor:
        """Regression targets (N, 4) of xyxy boxes (N, 4) towards ground truth `index` (N,)."""
        if len(target) == 0:
            return torch.zeros_like(boxes)
        return self.box_coder.encode(target.xyxy().to(boxes)[index], boxes)


def box_losses(
    logits: Tensor,
    deltas: Tensor,
    labels: Tensor,
    regression_targets: Tensor,
    *,
    class_agnostic: bool = False,
) -> dict[str, LossTerm]:
    """Return unnormalised `loss_classifier` and `loss_box_reg` of sampled proposals.

    logits (N, C), deltas (N, 4C) ((N, 8) class-agnostic), labels int64 (N,), regression_targets (N, 4).
    Classifier: cross entropy over labels >= 0. Boxes: smooth L1 of the deltas of the label's class
    (class-agnostic: columns 4..7), summed over positives and normalised by N. Without proposals both are
    zeros connected to the graph. Raises DataError for a label beyond the classes.
    """
    logits, deltas = logits.float(), deltas.float()
    if len(labels) and int(labels.max()) >= logits.shape[1]:
        raise DataError(
            f"an object has label {int(labels.max())}, but the model knows classes 0..{logits.shape[1] - 1}: "
            "set MODEL.ROI_BOX_HEAD.NUM_CLASSES to the number of categories plus one"
        )
    classifier = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
    positive = (labels > 0).nonzero().flatten()
    group = torch.ones_like(positive) if class_agnostic else labels[positive]
    predicted = deltas.reshape(len(deltas), deltas.shape[1] // 4, 4)[positive, group]
    regression = smooth_l1_loss(predicted, regression_targets[positive], SMOOTH_L1_BETA)
    return {
        "loss_classifier": LossTerm(classifier, (labels >= 0).sum()),
        "loss_box_reg": LossTerm(regression, len(labels)),
    }


def distillation_loss(student_cosine: Tensor, teacher_cosine: Tensor, num_old_classes: int) -> LossTerm:
    """Return the squared difference of old-class cosines, summed, to be normalised by the number of boxes.

    Knowledge distillation of LST (Hu et al. 2020, arXiv 2004.00900).

    student_cosine (n, C), teacher_cosine (n, C_old + 1), both with background first, which is left out, as
    are the student's new classes. No boxes: a zero connected to the graph. Raises ValueError for shapes that
    do not fit.
    """
    if teacher_cosine.shape != (len(student_cosine), num_old_classes + 1):
        raise ValueError(
            f"teacher cosines have shape {tuple(teacher_cosine.shape)}, expected "
            f"({len(student_cosine)}, {num_old_classes + 1}): boxes x (old classes + background)"
        )
    if student_cosine.shape[1] <= num_old_classes:
        raise ValueError(
            f"the student has {student_cosine.shape[1] - 1} classes, fewer than {num_old_classes} old ones"
        )
    old = slice(1, num_old_classes + 1)
    difference = student_cosine[:, old].float() - teacher_cosine[:, old].to(student_cosine.device).float()
    return LossTerm(difference.square().sum(), len(student_cosine))
