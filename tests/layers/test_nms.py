"""nms, batched_nms and boxlist_nms against a plain PyTorch reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskrcnn_benchmark.layers import batched_nms, boxlist_nms, nms
from maskrcnn_benchmark.structures.boxlist import BoxList


def reference(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Greedy NMS one box at a time, +1 areas, IoU strictly above the threshold."""
    order = scores.argsort(descending=True, stable=True).tolist()
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    kept: list[int] = []
    for i in order:
        corner = torch.minimum(boxes[i, 2:], boxes[kept, 2:]) - torch.maximum(boxes[i, :2], boxes[kept, :2])
        common = (corner + 1).clamp(min=0).prod(1)
        if not (common / (area[i] + area[kept] - common) > threshold).any():
            kept.append(i)
    return torch.tensor(sorted(kept), dtype=torch.int64)


def random_boxes(count: int, seed: int, extent: float = 60.0) -> tuple[Tensor, Tensor, Tensor]:
    """Crowded boxes, scores with ties, labels."""
    g = torch.Generator().manual_seed(seed)
    corner = (torch.rand(count, 2, generator=g) * extent).round()
    boxes = torch.cat([corner, corner + (torch.rand(count, 2, generator=g) * 40).round()], dim=1)
    scores = torch.randint(0, max(1, count // 2), (count,), generator=g) / 7.0
    return boxes, scores, torch.randint(-2, 5, (count,), generator=g)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 300), st.integers(0, 1000), st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]))
def test_equal_to_reference(count: int, seed: int, threshold: float) -> None:
    boxes, scores, _ = random_boxes(count, seed)
    assert torch.equal(nms(boxes, scores, threshold), reference(boxes, scores, threshold))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 300), st.integers(0, 1000))
def test_batched_is_nms_per_class(count: int, seed: int) -> None:
    boxes, scores, labels = random_boxes(count, seed)
    rows = [torch.arange(count)[labels == label] for label in labels.unique()]
    expected = [r[reference(boxes[r], scores[r], 0.4)] for r in rows]
    sorted_indices = torch.cat(expected).sort().values if expected else torch.zeros(0, dtype=torch.int64)
    assert torch.equal(batched_nms(boxes, scores, labels, 0.4), sorted_indices)


def test_threads_do_not_change_the_result() -> None:
    """Large enough for several tiles, and for removing dropped boxes."""
    boxes, _, labels = random_boxes(9000, 3, extent=900.0)
    scores = torch.rand(9000, generator=torch.Generator().manual_seed(4))
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append((nms(boxes, scores, 0.3), batched_nms(boxes, scores, labels, 0.3)))
    torch.set_num_threads(threads)
    best = scores.argsort(descending=True)[:2000]
    assert torch.equal(nms(boxes[best], scores[best], 0.3), reference(boxes[best], scores[best], 0.3))
    for single, batched in results[1:]:
        assert torch.equal(single, results[0][0])
        assert torch.equal(batched, results[0][1])


def test_equality_with_the_threshold_keeps_and_ties_go_to_the_lower_index() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 4], [0, 0, 9, 9]])
    assert nms(boxes, torch.ones(3), 0.5).tolist() == [0, 1]
    assert nms(boxes[[0, 2]], torch.ones(2), 0.99).tolist() == [0]


def test_strange_boxes_are_harmless() -> None:
    """NaN, infinite, huge and inverted boxes neither crash nor drop others."""
    nan, inf = float("nan"), float("inf")
    strange = [[nan, 0, 5, 5], [0, 0, inf, inf], [-1e38, -1e38, 1e38, 1e38], [9, 9, 2, 2], [nan] * 4]
    boxes = torch.tensor([*strange, [0, 0, 5, 5]])
    assert 5 in nms(boxes, torch.tensor([6.0, 5, 4, 3, 2, 1]), 0.5).tolist()
    assert nms(boxes, torch.full((6,), nan), 0.5).numel() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    boxes, scores, labels = random_boxes(80, 5)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    assert torch.equal(nms(boxes, scores, 0.5), reference(boxes.float(), scores.float(), 0.5))
    assert torch.equal(
        batched_nms(boxes, scores, labels.int(), 0.5), batched_nms(boxes.float(), scores, labels, 0.5)
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (torch.zeros(3, 5), torch.zeros(3), 0.5),
            ValueError,
            r"boxes must have shape \(N, 4\), got \(3, 5\)",
        ),
        ((torch.zeros(4), torch.zeros(1), 0.5), ValueError, r"boxes must have shape \(N, 4\), got \(4,\)"),
        ((torch.zeros(3, 4), torch.zeros(2), 0.5), ValueError, r"scores must have shape .* got \(2,\)"),
        ((torch.zeros(3, 4).long(), torch.zeros(3), 0.5), TypeError, "boxes must be float32.* got Long"),
        ((torch.zeros(3, 4), torch.zeros(3).int(), 0.5), TypeError, "scores must be float32.* got Int"),
        ((torch.zeros(3, 4), torch.zeros(3), 1.5), ValueError, "iou_threshold must be from 0 to 1, got 1.5"),
        ((torch.zeros(3, 4), torch.zeros(3), float("nan")), ValueError, "iou_threshold must be from 0 to 1"),
    ],
)
def test_bad_arguments(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nms(*arguments)


def test_bad_labels() -> None:
    with pytest.raises(TypeError, match="labels must be integers, got Float"):
        batched_nms(torch.zeros(2, 4), torch.zeros(2), torch.zeros(2), 0.5)
    with pytest.raises(ValueError, match=r"labels must have shape .* got \(3,\)"):
        batched_nms(torch.zeros(2, 4), torch.zeros(2), torch.zeros(3).long(), 0.5)


def test_boxlist_nms() -> None:
    boxes = BoxList([[0, 0, 10, 10], [50, 50, 10, 10], [1, 1, 10, 10]], (100, 100), mode="xywh")
    boxes.add_field("scores", torch.tensor([0.5, 0.4, 0.9]))
    boxes.add_field("labels", torch.tensor([1, 2, 3]))
    kept = boxlist_nms(boxes, 0.5)
    assert kept.mode == "xywh"
    assert kept.get_field("labels").tolist() == [2, 3]
    assert boxlist_nms(boxes, 0.5, max_proposals=1).get_field("labels").tolist() == [2]
    assert len(boxlist_nms(boxes, 0.0)) == 3
