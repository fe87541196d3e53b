"""FCOS: target assignment, losses, candidates and NMS, against plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.modeling.heads.common import distances_to_boxes, grid_locations
from maskrcnn_benchmark.modeling.heads.fcos.loss import BOX_LOSSES
from maskrcnn_benchmark.modeling.heads.fcos.postprocess import Candidates, FCOSPostProcessor, fast_nms
from maskrcnn_benchmark.modeling.heads.fcos.targets import (
    FCOSOutputs,
    Points,
    assign_locations,
    centerness_target,
)
from maskrcnn_benchmark.structures import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.utils.errors import UsageError

CPU = torch.device("cpu")
STRIDES = (8, 16, 32, 64, 128)
Target = Callable[..., BoxList]


def _target(boxes: list[list[float]], labels: list[int], size: tuple[int, int] = (256, 256)) -> BoxList:
    target = BoxList(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), size)
    target.add_field("labels", torch.tensor(labels, dtype=torch.int64))
    return target


def _locations(side: int = 256) -> list[Tensor]:
    return grid_locations([(math.ceil(side / s), math.ceil(side / s)) for s in STRIDES], STRIDES, CPU)


def _by_loops(point: tuple[float, float], level: int, boxes: list[list[float]], radius: float) -> int:
    """Index of the object of one location, -1 for none, as the paper words it."""
    best, best_area = -1, math.inf
    low = 8 * STRIDES[level - 1] if level else -1
    high = 8 * STRIDES[level] if level < 4 else 1e8
    for index, (x1, y1, x2, y2) in enumerate(boxes):
        sides = (point[0] - x1, point[1] - y1, x2 - point[0], y2 - point[1])
        inside = min(sides) > 0
        if radius > 0:
            reach = radius * STRIDES[level]
            inside &= abs(point[0] - (x1 + x2) / 2) < reach and abs(point[1] - (y1 + y2) / 2) < reach
        area = (x2 - x1 + 1) * (y2 - y1 + 1)
        if inside and low <= max(sides) <= high and area < best_area:
            best, best_area = index, area
    return best


@pytest.mark.parametrize("radius", [0.0, 1.5])
def test_assignment_equals_plain_loops(radius: float) -> None:
    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(30, 2, generator=generator) * 200
    boxes = torch.cat((corner, corner + 2 + torch.rand(30, 2, generator=generator) ** 2 * 180), dim=1)
    assigned = assign_locations(
        _locations(), STRIDES, _target(boxes.tolist(), list(range(1, 31))), radius=radius
    )
    expected = [
        _by_loops(tuple(point), level, boxes.tolist(), radius)
        for level, points in enumerate(_locations())
        for point in points.tolist()
    ]
    assert assigned.matches.tolist() == expected
    assert assigned.labels.tolist() == [index + 1 for index in expected]
    assert len(set(expected)) > 10


def test_no_object_and_objects_without_a_location() -> None:
    assigned = assign_locations(_locations(), STRIDES, _target([], []), radius=0.0)
    assert (
        not assigned.labels.any() and (assigned.matches == -1).all() and assigned.distances.isfinite().all()
    )
    point_box = _target([[4, 4, 4, 4], [5, 5, 6, 6]], [1, 2])  # no location lies strictly inside
    assert not assign_locations(_locations(), STRIDES, point_box, radius=1.5).labels.any()
    assert assign_locations(_locations(), STRIDES, _target([[3, 3, 5, 5]], [7]), radius=1.5).labels.sum() == 7


def test_ties_go_to_the_first_and_ranges_hold_both_ends() -> None:
    same = assign_locations(
        _locations(), STRIDES, _target([[0, 0, 40, 40], [0, 0, 40, 40]], [1, 2]), radius=0.0
    )
    assert set(same.labels.tolist()) == {0, 1}
    # From (4, 4) the farthest side of this box is exactly 64 away: the last distance of the finest level.
    edge = assign_locations(_locations(), STRIDES, _target([[0, 0, 68, 20]], [1]), radius=0.0)
    assert edge.labels[0] == 1 and edge.distances[0].max() == 64


def test_centerness() -> None:
    values = centerness_target(torch.tensor([[2.0, 2, 2, 2], [1, 2, 3, 2], [1e-9, 1, 1, 1]]))
    assert values[0] == 1 and values[1] == pytest.approx((1 / 3) ** 0.5) and 0 <= values[2] < 1e-3


@pytest.mark.parametrize("name", sorted(BOX_LOSSES))
def test_box_losses(name: str) -> None:
    expected = torch.tensor([[3.0, 4, 5, 6], [1, 1, 1, 1], [0.5, 9, 0.5, 9]])
    loss = BOX_LOSSES[name]
    torch.testing.assert_close(loss(expected, expected), torch.zeros(3), atol=1e-6, rtol=0)
    worse = loss(expected * 2, expected)
    assert (worse > loss(expected * 1.2, expected)).all()
    zeros = torch.zeros(3, 4, requires_grad=True)
    loss(zeros, expected).sum().backward()
    assert zeros.grad is not None and zeros.grad.isfinite().all()


def test_distances_may_be_negative_in_the_inclusive_loss() -> None:
    predicted = torch.tensor([[-5.0, -5, 2, 2], [-50, 3, -50, 3]], requires_grad=True)
    loss = BOX_LOSSES["inclusive_iou"](predicted, torch.tensor([[3.0, 3, 3, 3], [3, 3, 3, 3]]))
    assert loss.isfinite().all() and loss.max() <= -math.log(1e-6) + 1e-4
    loss.sum().backward()
    assert predicted.grad is not None and predicted.grad.isfinite().all()


def _outputs(images: int = 1, classes: int = 3, seed: int = 0, shift: float = 0.0) -> FCOSOutputs:
    g = torch.Generator().manual_seed(seed)
    sizes = [(8, 8), (4, 4)]
    return FCOSOutputs(
        [torch.randn(images, classes, *s, generator=g) + shift for s in sizes],
        [torch.rand(images, 4, *s, generator=g) * 3 for s in sizes],
        [torch.randn(images, 1, *s, generator=g) for s in sizes],
    )


@pytest.mark.parametrize("by_location", [False, True])
@pytest.mark.parametrize("on_score", [False, True])
def test_candidates_equal_plain_loops(by_location: bool, on_score: bool) -> None:
    outputs = _outputs()
    points = Points.of(outputs, (8, 16), in_strides=True)
    processor = FCOSPostProcessor(
        score_thresh=0.4,
        pre_nms_top_n=20,
        nms_thresh=0.5,
        detections_per_img=100,
        sqrt_scores=False,
        threshold_on_score=on_score,
        top_k_by_location=by_location,
    )
    (candidates,) = processor.candidates(outputs, points)
    expected, start = [], 0
    for level, stride in enumerate((8, 16)):
        scores = outputs.logits[level][0].sigmoid().flatten(1)
        centre = outputs.centerness[level][0, 0].sigmoid().flatten()
        rows = range(scores.shape[1])
        if by_location:
            rows = sorted(rows, key=lambda r: -float((scores[:, r] * centre[r]).max()))[:20]
        pairs = [
            (float(scores[c, r] * centre[r]), r, c)
            for r in rows
            for c in range(3)
            if (scores[c, r] * centre[r] if on_score else scores[c, r]) > 0.4
        ]
        pairs = pairs if by_location else sorted(pairs, reverse=True)[:20]
        side = outputs.logits[level].shape[-1]
        for score, row, c in pairs:
            x, y = (row % side) * stride + stride // 2, (row // side) * stride + stride // 2
            d = (outputs.distances[level][0].flatten(1)[:, row] * stride).tolist()
            expected.append((start + row, c + 1, score, x - d[0], y - d[1], x + d[2], y + d[3]))
        start += side * side
    got = sorted(
        (p, c, s, *b)
        for p, c, s, b in zip(
            candidates.point.tolist(),
            candidates.labels.tolist(),
            candidates.scores.tolist(),
            candidates.boxes.tolist(),
            strict=True,
        )
    )
    assert len(got) == len(expected) > 10
    torch.testing.assert_close(torch.tensor(got), torch.tensor(sorted(expected)))


def _random_boxes(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=g) * 60
    boxes = torch.cat((corner, corner + 5 + torch.rand(count, 2, generator=g) * 40), dim=1)
    return boxes, torch.rand(count, generator=g), torch.randint(1, 4, (count,), generator=g)


def _iou(a: list[float], b: list[float]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(w, 0) * max(h, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


@pytest.mark.parametrize("top_k", [5, 200])
def test_fast_nms_equals_plain_loops(top_k: int) -> None:
    boxes, scores, labels = _random_boxes(60, 1)
    kept = set(fast_nms(boxes, scores, labels, 0.5, top_k).tolist())
    expected = set()
    for label in (1, 2, 3):
        of_class = [i for i in scores.argsort(descending=True).tolist() if labels[i] == label][:top_k]
        for rank, i in enumerate(of_class):
            if all(_iou(boxes[i].tolist(), boxes[j].tolist()) <= 0.5 for j in of_class[:rank]):
                expected.add(i)
    assert kept == expected and 0 < len(expected) < 60


def test_nms_of_no_one_and_thousands_of_boxes() -> None:
    for fast in (False, True):
        processor = FCOSPostProcessor(
            score_thresh=0.05, pre_nms_top_n=1000, nms_thresh=0.5, detections_per_img=100, fast_nms=fast
        )
        empty = Candidates(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long(), torch.zeros(0).long())
        assert len(processor.detections(empty, (64, 64)).scores) == 0
        boxes, scores, labels = _random_boxes(5000, 2)
        many = Candidates(boxes, scores, labels, torch.arange(5000))
        kept = processor.detections(many, (64, 48), (2.0, 2.0))
        assert 0 < len(kept.scores) <= 100
        assert (kept.scores.diff() <= 0).all()
        assert kept.boxes[:, 0::2].max() <= 47 and kept.boxes[:, 1::2].max() <= 63
        one = many[torch.tensor([7])]
        assert processor.detections(one, (64, 48)).point.tolist() == [7]


def test_iou_of_empty_boxes_is_zero() -> None:
    boxes = torch.zeros(3, 4)
    kept = fast_nms(boxes, torch.tensor([0.3, 0.9, 0.5]), torch.ones(3).long(), 0.5, 200)
    assert sorted(kept.tolist()) == [0, 1, 2]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_detection_model(load_config("configs/tiny/fcos.yaml"))


def _images(*sizes: tuple[int, int]) -> ImageList:
    tensors = torch.zeros(len(sizes), 3, 64, 64)
    for slot, (height, width) in zip(tensors, sizes, strict=True):
        slot[:, :height, :width] = torch.randn(3, height, width)
    return ImageList(tensors, sizes)


def test_losses_without_objects_reach_every_parameter(model: torch.nn.Module) -> None:
    model.train()
    empty = [_target([], [], (64, 64)), _target([], [], (64, 64))]
    losses = model(_images((64, 64), (64, 64)), empty)
    full = model(_images((64, 64), (64, 64)), [_target([[4, 4, 40, 40]], [2], (64, 64))] * 2)
    assert losses.keys() == full.keys() == {"loss_cls", "loss_reg", "loss_centerness"}
    assert float(losses["loss_reg"].detach()) == 0 == float(losses["loss_centerness"].detach())
    model.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_images_smaller_than_a_stride(model: torch.nn.Module) -> None:
    model.eval()
    detections = model(_images((5, 3), (1, 1)))
    assert [tuple(f.size) for f in detections] == [(3, 5), (1, 1)]
    for boxlist, (width, height) in zip(detections, [(3, 5), (1, 1)], strict=True):
        if len(boxlist):
            assert boxlist.bbox[:, 0::2].max() <= width - 1 and boxlist.bbox[:, 1::2].max() <= height - 1


def test_outputs_that_are_not_finite_are_refused(model: torch.nn.Module) -> None:
    images = _images((64, 64))
    images.tensors[0, 0, 5, 5] = float("nan")
    with pytest.raises(UsageError, match="not finite"):
        model.eval()(images)


def test_boxes_of_distances() -> None:
    boxes = distances_to_boxes(torch.tensor([[10.0, 20.0]]), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert boxes.tolist() == [[9.0, 18.0, 13.0, 24.0]]
