"""Detections against a plain reference, class by class."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.layers.nms import nms
from maskrcnn_benchmark.modeling.box_coder import BoxCoder, clip_boxes
from maskrcnn_benchmark.modeling.roi_heads.box_head import inference as module
from maskrcnn_benchmark.modeling.roi_heads.box_head.inference import BoxPostProcessor
from maskrcnn_benchmark.structures import BoxList
from maskrcnn_benchmark.utils.errors import UsageError

CODER = BoxCoder((10.0, 10.0, 5.0, 5.0))


def make(count: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor, BoxList]:
    """Logits (n,C), deltas (n,4C) and proposals of one image of 120x90."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 60
    boxes = torch.cat((corner, corner + 10 + torch.rand(count, 2, generator=generator) * 30), dim=1)
    logits = 2 * torch.randn(count, classes, generator=generator)
    return logits, torch.randn(count, 4 * classes, generator=generator), BoxList(boxes, (120, 90))


def reference(
    logits: Tensor, deltas: Tensor, proposals: BoxList, thresh: float, limit: int
) -> list[tuple[int, int]]:
    """(label, proposal) of the detections in output order."""
    scores = logits.softmax(dim=1)
    boxes = clip_boxes(CODER.decode(deltas, proposals.bbox).reshape(len(logits), -1, 4), proposals.size)
    found = []
    for label in range(1, logits.shape[1]):
        rows = (scores[:, label] > thresh).nonzero().flatten()
        keep = rows[nms(boxes[rows, label], scores[rows, label], 0.5)]
        found += [(float(scores[r, label]), label, int(r)) for r in keep]
    best = sorted(found, key=lambda d: -d[0])[:limit] if limit > 0 else found
    return sorted((label, row) for _, label, row in best)


@pytest.mark.parametrize(("thresh", "limit"), [(0.05, 25), (0.05, 0), (0.0, 10), (0.3, 100)])
@pytest.mark.parametrize("first", [1, 1000])
def test_against_reference(monkeypatch: pytest.MonkeyPatch, thresh: float, limit: int, first: int) -> None:
    monkeypatch.setattr(module, "INITIAL_CANDIDATES", first)
    logits, deltas, proposals = make(60, 7)
    processor = BoxPostProcessor(CODER, score_thresh=thresh, nms_thresh=0.5, detections_per_img=limit)
    (found,) = processor(logits, deltas, [proposals])
    expected = reference(logits, deltas, proposals, thresh, limit)
    assert found.get_field("labels").tolist() == [label for label, _ in expected]
    scores = logits.softmax(dim=1)
    assert torch.equal(found.get_field("scores"), torch.stack([scores[r, c] for c, r in expected]))
    decoded = CODER.decode(deltas, proposals.bbox).reshape(60, -1, 4)
    assert torch.allclose(
        found.bbox, clip_boxes(torch.stack([decoded[r, c] for c, r in expected]), (120, 90))
    )


def test_widening_is_exact_when_the_top_candidates_coincide() -> None:
    logits, deltas, proposals = make(300, 3)
    proposals.bbox[:280] = proposals.bbox[0]  # the best candidates are one pile
    deltas.zero_()
    logits[:280, 1] += 8
    processor = BoxPostProcessor(CODER, score_thresh=0.0, nms_thresh=0.5, detections_per_img=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "INITIAL_CANDIDATES", 1)
        (found,) = processor(logits, deltas, [proposals])
    assert len(found) == 20
    expected = reference(logits, deltas, proposals, 0.0, 20)
    assert found.get_field("labels").tolist() == [label for label, _ in expected]


def test_ties_do_not_pass_the_limit() -> None:
    boxes = torch.tensor([[20.0 * i, 0, 20 * i + 9, 9] for i in range(5)])
    logits = torch.tensor([[0.0, 2.0]] * 5)
    processor = BoxPostProcessor(CODER, score_thresh=0.05, nms_thresh=0.5, detections_per_img=3)
    (found,) = processor(logits, torch.zeros(5, 8), [BoxList(boxes, (120, 90))])
    assert found.bbox[:, 0].tolist() == [0, 20, 40]


def test_class_agnostic_uses_the_foreground_columns() -> None:
    logits, _, proposals = make(10, 4)
    deltas = torch.cat((torch.full((10, 4), 99.0), torch.zeros(10, 4)), dim=1)
    processor = BoxPostProcessor(
        CODER, score_thresh=0.0, nms_thresh=0.0, detections_per_img=0, class_agnostic=True
    )
    (found,) = processor(logits, deltas, [proposals])
    assert len(found) == 30 and torch.allclose(found.bbox, proposals.bbox.repeat(3, 1), atol=1e-4)


def test_empty_and_several_images() -> None:
    logits, deltas, proposals = make(8, 4)
    processor = BoxPostProcessor(CODER, score_thresh=0.05, nms_thresh=0.5, detections_per_img=5)
    nothing = BoxList(torch.zeros(0, 4), (50, 40))
    first, empty = processor(logits, deltas, [proposals, nothing])
    assert len(first) > 0 and len(empty) == 0 and empty.get_field("labels").dtype == torch.int64
    strict = BoxPostProcessor(CODER, score_thresh=1.0, nms_thresh=0.5, detections_per_img=5)
    assert len(strict(logits, deltas, [proposals])[0]) == 0
    assert len(processor(torch.zeros(0, 4), torch.zeros(0, 16), [nothing])[0]) == 0


def test_diverged_weights_are_reported() -> None:
    logits, deltas, proposals = make(8, 4)
    logits[2, 1] = float("nan")
    processor = BoxPostProcessor(CODER, score_thresh=0.05, nms_thresh=0.5, detections_per_img=5)
    with pytest.raises(UsageError, match="class logits are not finite"):
        processor(logits, deltas, [proposals])
