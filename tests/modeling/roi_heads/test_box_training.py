"""Targets and losses of the box head."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.box_coder import BoxCoder
from maskrcnn_benchmark.modeling.losses import mean_losses
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.modeling.roi_heads.box_head.loss import ProposalSampler, box_losses
from maskrcnn_benchmark.modeling.roi_heads.box_head.predictors import FPNCosinePredictor
from maskrcnn_benchmark.structures import BoxList
from maskrcnn_benchmark.utils.errors import DataError

CODER = BoxCoder((10.0, 10.0, 5.0, 5.0))


def make_targets(batch: int = 64, low: float = 0.5) -> ProposalSampler:
    """A quarter of positives."""
    return ProposalSampler(Matcher(0.5, low), CODER, batch_size_per_image=batch, positive_fraction=0.25)


def ground_truth(boxes: list[list[float]], labels: list[int]) -> BoxList:
    """Objects in an image of 100x100."""
    target = BoxList(torch.tensor(boxes).reshape(-1, 4), (100, 100))
    target.add_field("labels", torch.tensor(labels, dtype=torch.int64))
    return target


PROPOSALS = BoxList(
    torch.tensor([[60.0, 60, 79, 79], [0, 0, 19, 19], [1, 0, 20, 19], [40, 0, 59, 19], [0, 0, 19, 45]]),
    (100, 100),
)
TARGET = ground_truth([[0.0, 0, 19, 19], [40, 0, 59, 19]], [3, 2])


def test_assignment() -> None:
    labels, index = make_targets(low=0.3).label_boxes(PROPOSALS.bbox, TARGET)
    assert labels.tolist() == [0, 3, 3, 2, -1] and index[:4].tolist() == [0, 0, 0, 1]


def test_sample_keeps_order_and_encodes() -> None:
    (sampled,) = make_targets().sample([PROPOSALS], [TARGET])
    assert torch.equal(sampled.bbox, PROPOSALS.bbox)
    targets = sampled.get_field("regression_targets")
    assert targets[1].abs().max() == 0
    assert torch.allclose(targets[2], CODER.encode(TARGET.bbox[:1], PROPOSALS.bbox[2:3])[0])


def test_query_class_leaves_others_out() -> None:
    (sampled,) = make_targets().sample([PROPOSALS], [TARGET], [2])
    assert sampled.get_field("labels").tolist() == [0, 2, 0]
    (fallback,) = make_targets().sample([PROPOSALS], [TARGET], [9])
    assert fallback.get_field("labels").tolist() == [0, 3, 3, 2, 0]
    with pytest.raises(ValueError, match="2 query classes for 1"):
        make_targets().sample([PROPOSALS], [TARGET], [1, 2])


def test_image_without_objects_is_background() -> None:
    (sampled,) = make_targets().sample([PROPOSALS], [ground_truth([], [])], [3])
    assert sampled.get_field("labels").tolist() == [0] * 5
    assert torch.isfinite(sampled.get_field("regression_targets")).all()


def test_losses_by_hand() -> None:
    torch.manual_seed(0)
    logits, deltas = torch.randn(4, 3), torch.randn(4, 12)
    labels, targets = torch.tensor([2, 0, -1, 1]), torch.randn(4, 4)
    losses = mean_losses(box_losses(logits, deltas, labels, targets))
    kept = labels >= 0
    assert torch.allclose(losses["loss_classifier"], F.cross_entropy(logits[kept], labels[kept]))
    expected = F.smooth_l1_loss(deltas[0, 8:12], targets[0], reduction="sum")
    expected += F.smooth_l1_loss(deltas[3, 4:8], targets[3], reduction="sum")
    assert torch.allclose(losses["loss_box_reg"], expected / 4)
    terms = box_losses(logits, deltas[:, :8], labels, targets, class_agnostic=True)
    agnostic = terms["loss_box_reg"].mean()
    expected = F.smooth_l1_loss(deltas[[0, 3], 4:8], targets[[0, 3]], reduction="sum")
    assert torch.allclose(agnostic, expected / 4)


def test_no_proposals_and_unknown_label() -> None:
    logits, deltas = torch.zeros(0, 3, requires_grad=True), torch.zeros(0, 12, requires_grad=True)
    losses = mean_losses(box_losses(logits, deltas, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4)))
    assert all(v.item() == 0 and v.requires_grad for v in losses.values())
    with pytest.raises(DataError, match="label 3"):
        box_losses(torch.zeros(1, 3), torch.zeros(1, 12), torch.tensor([3]), torch.zeros(1, 4))


def test_cosine_predictor() -> None:
    torch.manual_seed(0)
    predictor = FPNCosinePredictor(8, 5, initial_scale=10.0)
    assert list(predictor.state_dict()) == [
        "scale_cls",
        "cls_score.weight",
        "bbox_pred.weight",
        "bbox_pred.bias",
    ]
    x = torch.randn(6, 8)
    cosine = predictor.cosine(x)
    assert torch.allclose(
        cosine, F.cosine_similarity(x[:, None], predictor.cls_score.weight[None], dim=2), atol=1e-6
    )
    logits, deltas = predictor(x)
    assert torch.allclose(logits, 10 * cosine) and torch.equal(deltas, predictor.bbox_pred(x.clamp(min=0)))
    assert torch.equal(predictor.cosine(torch.zeros(1, 8)), torch.zeros(1, 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(predictor.cosine(x), cosine)
