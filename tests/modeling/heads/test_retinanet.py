"""RetinaNet's targets, losses and detections on anchors and outputs made by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.layers import nms
from maskrcnn_benchmark.modeling.box_coder import BoxCoder, clip_boxes
from maskrcnn_benchmark.modeling.heads.common import flatten_map
from maskrcnn_benchmark.modeling.heads.retinanet.loss import RetinaNetLoss
from maskrcnn_benchmark.modeling.heads.retinanet.postprocess import RetinaNetPostProcessor
from maskrcnn_benchmark.modeling.heads.retinanet.targets import BOX_WEIGHTS, assign_anchors, build_anchors
from maskrcnn_benchmark.modeling.heads.retinanet.towers import RetinaNetTowers
from maskrcnn_benchmark.modeling.losses import mean_losses
from maskrcnn_benchmark.modeling.matcher import Matcher
from maskrcnn_benchmark.structures import BoxList
from maskrcnn_benchmark.utils.errors import UsageError

CODER = BoxCoder(BOX_WEIGHTS)
MATCHER = Matcher(0.5, 0.4, allow_low_quality=True, zero_iou_matches=False)
LOSS = RetinaNetLoss(MATCHER, CODER, gamma=2.0, alpha=0.25, beta=0.11, regression_weight=4.0)
ANCHORS = torch.tensor(
    [[0.0, 0, 9, 9], [0, 0, 9, 8], [0, 0, 9, 4], [0, 0, 9, 3], [50, 50, 59, 59], [90, 90, 95, 95]]
)
Target = Callable[..., BoxList]


def test_labels_of_anchors(make_target: Target) -> None:
    """IoU 1, .9, .5, .4 (between), 0, 0 with the first object; the last object has a poor best anchor."""
    target = make_target([[0, 0, 9, 9], [88, 88, 99, 99]], [3, 7])
    labels, matches = assign_anchors(MATCHER, ANCHORS, target)
    assert labels.tolist() == [3, 3, 3, -1, 0, 7]
    assert matches.tolist() == [0, 0, 0, -1, -1, 1]
    empty, none = assign_anchors(MATCHER, ANCHORS, make_target([], []))
    assert empty.tolist() == [0] * 6 and none.tolist() == [-1] * 6


def _outputs(images: int, classes: int, seed: int = 0) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The anchors as two levels, with random logits and deltas."""
    g = torch.Generator().manual_seed(seed)
    anchors = [ANCHORS[:4], ANCHORS[4:]]
    logits = [torch.randn(images, len(a), classes, generator=g).requires_grad_() for a in anchors]
    return anchors, logits, [torch.randn(images, len(a), 4, generator=g).requires_grad_() for a in anchors]


def test_losses_by_hand(make_target: Target) -> None:
    anchors, logits, deltas = _outputs(2, 7)
    targets = [make_target([[0, 0, 9, 9], [88, 88, 99, 99]], [3, 7]), make_target([], [])]
    losses = mean_losses(LOSS(anchors, logits, deltas, targets))
    p = torch.cat(logits, 1).detach().double().sigmoid()
    onehot = torch.zeros(2, 6, 7)
    for anchor, label in ((0, 3), (1, 3), (2, 3), (5, 7)):
        onehot[0, anchor, label - 1] = 1
    positive = -0.25 * (1 - p) ** 2 * p.log()
    negative = -0.75 * p**2 * (1 - p).log()
    each = torch.where(onehot > 0, positive, negative)
    each[0, 3] = 0  # between the thresholds
    assert losses["loss_retina_cls"].item() == pytest.approx(each.sum().item() / (4 + 2), rel=1e-5)
    chosen = torch.cat(deltas, 1).detach()[0, [0, 1, 2, 5]]
    objects = targets[0].bbox[[0, 0, 0, 1]]
    difference = (chosen - CODER.encode(objects, ANCHORS[[0, 1, 2, 5]])).abs()
    smooth = torch.where(difference < 0.11, difference**2 / 0.22, difference - 0.055)
    assert losses["loss_retina_reg"].item() == pytest.approx(smooth.sum().item() / (4 * 4), rel=1e-5)
    losses["loss_retina_reg"].backward()
    moved = [d.grad.abs().sum(2) > 0 for d in deltas if d.grad is not None]
    assert torch.cat(moved, 1).nonzero().tolist() == [[0, 0], [0, 1], [0, 2], [0, 5]]


def test_losses_without_objects_are_connected(make_target: Target) -> None:
    anchors, logits, deltas = _outputs(2, 3)
    terms = LOSS(anchors, logits, deltas, [make_target([], [])] * 2)
    losses = mean_losses(terms)
    assert set(losses) == {"loss_retina_cls", "loss_retina_reg"}
    assert losses["loss_retina_cls"] > 0 and losses["loss_retina_reg"] == 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(t.grad is not None and t.grad.isfinite().all() for t in (*logits, *deltas))


def test_a_label_beyond_the_classes_is_refused(make_target: Target) -> None:
    with pytest.raises(ValueError, match="must be from -1 to 3 .* got 4"):
        LOSS(*_outputs(1, 3), [make_target([[0, 0, 9, 9]], [4])])


class Rule(NamedTuple):
    """Arguments of RetinaNetPostProcessor."""

    score_thresh: float
    pre_nms_top_n: int
    nms_thresh: float
    detections_per_img: int


def detect(rule: Rule, *inputs: list[Tensor], size: tuple[int, int] = (80, 100)) -> BoxList:
    """Detections of the first image."""
    return RetinaNetPostProcessor(CODER, **rule._asdict())(*inputs, [size] * len(inputs[1][0]))[0]


def plain_detections(
    rule: Rule, anchors: list[Tensor], logits: list[Tensor], deltas: list[Tensor]
) -> list[tuple[float, int, list[float]]]:
    """The rule one class at a time, for the first image of (80, 100)."""
    boxes, scores, labels = [], [], []
    for a, level, d in zip(anchors, logits, deltas, strict=True):
        flat = level[0].detach().sigmoid().flatten()
        best = flat.argsort(descending=True)[: rule.pre_nms_top_n]
        best = best[flat[best] > rule.score_thresh]
        row = best // level.shape[2]
        boxes.append(clip_boxes(CODER.decode(d[0].detach()[row], a[row]), (100, 80)))
        scores.append(flat[best])
        labels.append(best % level.shape[2] + 1)
    box, score, label = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
    detections = []
    for c in label.unique():
        rows = (label == c).nonzero().flatten()
        for i in rows[nms(box[rows], score[rows], rule.nms_thresh)]:
            detections.append((score[i].item(), int(c), box[i].tolist()))
    return sorted(detections, reverse=True)[: rule.detections_per_img]


@pytest.mark.parametrize("seed", range(6))
def test_detections_equal_the_plain_rule(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(70, 2, generator=g) * 70
    every = torch.cat([corner, corner + 5 + torch.rand(70, 2, generator=g) * 30], 1)
    anchors = [every[:50], every[50:]]
    logits = [torch.randn(2, len(a), 5, generator=g) for a in anchors]
    deltas = [torch.randn(2, len(a), 4, generator=g) for a in anchors]
    rule = Rule(0.5, 60, 0.4, 25)
    detections = detect(rule, anchors, logits, deltas)
    expected = plain_detections(rule, anchors, logits, deltas)
    assert 5 < len(detections) == len(expected)
    assert detections.get_field("labels").tolist() == [label for _, label, _ in expected]
    torch.testing.assert_close(detections.get_field("scores"), torch.tensor([s for s, _, _ in expected]))
    torch.testing.assert_close(detections.bbox, torch.tensor([b for _, _, b in expected]))


def test_nms_works_on_a_single_level_too() -> None:
    anchors = [torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [30, 30, 40, 40]])]
    logits = [torch.tensor([[[3.0, -9], [2, -9], [1, 2.5]]])]
    detections = detect(Rule(0.5, 100, 0.4, 100), anchors, logits, [torch.zeros(1, 3, 4)])
    assert detections.get_field("labels").tolist() == [1, 2, 1]
    assert detections.get_field("scores").tolist() == pytest.approx(
        [1 / (1 + math.exp(-x)) for x in (3, 2.5, 1)]
    )
    assert detections.bbox[0].tolist() == [0, 0, 9, 9]


def test_limits_of_the_detections() -> None:
    anchors, logits, deltas = [ANCHORS], [torch.arange(12.0).reshape(1, 6, 2)], [torch.zeros(1, 6, 4)]
    every = Rule(0.0, 100, 0.0, 0)
    assert len(detect(every, anchors, logits, deltas)) == 12, "no threshold, no NMS, no limit"
    assert len(detect(Rule(1.0, 100, 0.4, 10), anchors, logits, deltas)) == 0
    few = detect(Rule(0.0, 3, 0.0, 0), anchors, logits, deltas)
    assert few.get_field("labels").tolist() == [2, 1, 2]
    assert len(detect(Rule(0.0, 3, 0.0, 2), anchors, logits, deltas)) == 2
    clipped = detect(every, anchors, logits, deltas, size=(60, 60)).bbox
    assert clipped.max() == 59, "boxes outside are clipped, and kept"


@pytest.mark.parametrize("which", [1, 2])
def test_diverged_outputs_are_an_error(which: int) -> None:
    inputs = _outputs(1, 3)
    inputs[which][1].data[0, 0, 0] = float("nan")
    with pytest.raises(UsageError, match="are not finite"):
        detect(Rule(0.05, 100, 0.4, 10), *inputs)


def test_anchors_and_towers() -> None:
    node = get_cfg().MODEL.RETINANET
    generator = build_anchors(node)
    assert generator.num_anchors_per_location() == [9] * 5
    sides = generator.cell_anchors[0][3:6, 2] - generator.cell_anchors[0][3:6, 0] + 1
    assert sides.tolist() == pytest.approx([32, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)], rel=1e-6)
    towers = RetinaNetTowers(8, 5, 9, depth=2, prior_probability=0.01)
    logits, deltas = towers([torch.randn(2, 8, 6, 7), torch.randn(2, 8, 3, 4)])
    assert [t.shape for t in logits] == [(2, 45, 6, 7), (2, 45, 3, 4)] and deltas[1].shape == (2, 36, 3, 4)
    assert logits[0].sigmoid().mean().item() == pytest.approx(0.01, rel=0.05)
    assert list(dict(towers.named_parameters()))[:4] == [
        "cls_tower.0.weight",
        "cls_tower.0.bias",
        "cls_tower.2.weight",
        "cls_tower.2.bias",
    ]


def test_maps_are_read_without_a_copy() -> None:
    """Order (row, column, anchor); channel = anchor * width + part."""
    maps = torch.arange(2 * 6 * 4 * 5.0).reshape(2, 6, 4, 5)
    flat = flatten_map(maps, 3)
    assert flat.shape == (2, 40, 3) and torch.equal(flat[1, 2 * (5 * 3 + 4) + 1], maps[1, 3:6, 3, 4])
    last = maps.contiguous(memory_format=torch.channels_last)
    assert flatten_map(last, 3).data_ptr() == last.data_ptr() and torch.equal(flatten_map(last, 3), flat)
