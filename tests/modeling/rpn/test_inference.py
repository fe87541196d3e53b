"""Proposal selection against a plain reference, image by image and level by level."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.layers.nms import nms
from maskrcnn_benchmark.modeling.box_coder import BoxCoder, clip_boxes
from maskrcnn_benchmark.modeling.rpn.inference import (
    ProposalSelector,
    _top_in_order,
    add_ground_truth,
)
from maskrcnn_benchmark.structures import BoxList
from maskrcnn_benchmark.utils.errors import UsageError

CODER = BoxCoder((1.0, 1.0, 1.0, 1.0))
SIZES = [(60, 90), (70, 50)]


def make_selector(**changes: float) -> ProposalSelector:
    """A selector with small limits, and `changes` of its arguments."""
    limits = {"pre_nms_top_n": 40, "post_nms_top_n": 15, "total_top_n": 20, "per_batch": False}
    others = {"nms_thresh": 0.6, "min_size": 0, "drop_non_finite": False}
    return ProposalSelector(CODER, **{**limits, **others, **changes})  # type: ignore[arg-type]


def outputs(seed: int = 0) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Anchors (n, 4), logits (2, n, 1) and deltas (2, n, 4) of two levels."""
    generator = torch.Generator().manual_seed(seed)
    anchors, logits, deltas = [], [], []
    for count, side in ((80, 20), (30, 45)):
        corner = torch.rand(count, 2, generator=generator) * 50
        anchors.append(torch.cat((corner, corner + side), dim=1))
        logits.append(torch.randn(2, count, 1, generator=generator))
        deltas.append(torch.randn(2, count, 4, generator=generator) * 0.3)
    return anchors, logits, deltas


def reference_level(
    selector: ProposalSelector, anchors: Tensor, logits: Tensor, deltas: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Boxes (n, 4) and logits (n,) of one level of one image, in descending order of logits."""
    order = logits.argsort(descending=True)[: selector.pre_nms_top_n]
    boxes = clip_boxes(CODER.decode(deltas[order], anchors[order]), (size[1], size[0]))
    large = ((boxes[:, 2:] - boxes[:, :2] + 1) >= selector.min_size).all(dim=1)
    boxes, order = boxes[large], order[large]
    keep = nms(boxes, logits[order], selector.nms_thresh)[: selector.post_nms_top_n]
    return boxes[keep], logits[order][keep]


@pytest.mark.parametrize("changes", [{}, {"min_size": 18}, {"total_top_n": 1000}, {"pre_nms_top_n": 5}])
@pytest.mark.parametrize("per_batch", [False, True])
def test_against_reference(changes: dict[str, float], per_batch: bool) -> None:
    selector = make_selector(per_batch=per_batch, **changes)
    anchors, logits, deltas = outputs()
    proposals = selector.select(anchors, logits, deltas, SIZES)
    reference = [
        [
            reference_level(selector, a, s[i, :, 0], d[i], SIZES[i])
            for a, s, d in zip(anchors, logits, deltas, strict=True)
        ]
        for i in range(2)
    ]
    scores = [torch.cat([level[1] for level in image]) for image in reference]
    boxes = [torch.cat([level[0] for level in image]) for image in reference]
    if per_batch:
        all_scores = torch.cat(scores)
        threshold = all_scores.sort(descending=True).values[: selector.total_top_n][-1]
        selected = [s >= threshold for s in scores]
    else:
        selected = [s.argsort(descending=True)[: selector.total_top_n] for s in scores]
    for i in range(2):
        assert torch.allclose(proposals[i].bbox, boxes[i][selected[i]], atol=1e-4)
        assert torch.allclose(proposals[i].get_field("objectness"), scores[i][selected[i]].sigmoid())
        assert proposals[i].size == (SIZES[i][1], SIZES[i][0])


def test_single_level_has_no_total_limit() -> None:
    anchors, logits, deltas = (part[:1] for part in outputs())
    proposals = make_selector(total_top_n=3).select(anchors, logits, deltas, SIZES)
    assert all(len(p) == 15 for p in proposals)


def test_saturated_logits_keep_their_order() -> None:
    anchors = [torch.tensor([[0.0, 0, 9, 9], [30, 30, 39, 39], [50, 5, 59, 14]])]
    logits = [torch.tensor([[[100.0], [300.0], [200.0]]])]
    (proposals,) = make_selector(pre_nms_top_n=2).select(anchors, logits, [torch.zeros(1, 3, 4)], SIZES[:1])
    assert proposals.bbox[:, 0].tolist() == [30, 50]


def test_non_finite_outputs() -> None:
    anchors, logits, deltas = outputs()
    logits[0][0, 3], deltas[0][0, 5, 1] = float("nan"), float("inf")
    dropping = make_selector(drop_non_finite=True)
    proposals = dropping.select(anchors, logits, deltas, SIZES)
    assert all(torch.isfinite(p.bbox).all() for p in proposals) and len(proposals[0]) > 0
    with pytest.raises(UsageError, match="not finite"):
        make_selector().select(anchors, logits, deltas, SIZES)
    all_nan = [torch.full_like(s, float("nan")) for s in logits]
    assert [len(p) for p in dropping.select(anchors, all_nan, deltas, SIZES)] == [0, 0]


def test_no_proposals_left() -> None:
    proposals = make_selector(min_size=1000).select(*outputs(), SIZES)
    assert [len(p) for p in proposals] == [0, 0]


def test_ground_truth_is_appended_with_full_objectness() -> None:
    proposal = BoxList(torch.tensor([[0.0, 0, 5, 5]]), (20, 20))
    proposal.add_field("objectness", torch.tensor([0.3]))
    (joined,) = add_ground_truth([proposal], [BoxList(torch.tensor([[1.0, 1, 8, 9]]), (20, 20))])
    assert joined.bbox.tolist() == [[0, 0, 5, 5], [1, 1, 8, 9]]
    assert joined.get_field("objectness").tolist() == pytest.approx([0.3, 1.0])
    (same,) = add_ground_truth([proposal], [BoxList(torch.zeros(0, 4), (20, 20))])
    assert len(same) == 1


@pytest.mark.parametrize("count", [1, 3, 5, 6, 20])
def test_highest_with_ties(count: int) -> None:
    logits = [1.0, 5, 3, 3, -9, 3.0, 3, 7, -9, 1]
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:count]
    assert sorted(order) == _top_in_order(torch.tensor(logits), count).tolist()
