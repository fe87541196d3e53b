"""BoxList: conventions, fields, property checks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_benchmark.structures import (
    FLIP_LEFT_RIGHT,
    FLIP_TOP_BOTTOM,
    BoxList,
    SegmentationMask,
    box_iou,
    boxlist_iou,
    cat_boxlist,
    remove_small_boxes,
)

WIDTH, HEIGHT = 100, 80
coordinate = st.integers(0, 60)
boxes_strategy = st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), min_size=0, max_size=6)


def boxes_of(rows: list[tuple[int, int, int, int]]) -> BoxList:
    """A BoxList of x, y, extra width, extra height rows."""
    data = [(x, y, min(x + w, WIDTH - 1), min(y + h, HEIGHT - 1)) for x, y, w, h in rows]
    return BoxList(torch.tensor(data, dtype=torch.float32).reshape(-1, 4), (WIDTH, HEIGHT))


def rectangle(x1: float, y1: float, x2: float, y2: float) -> list[list[float]]:
    """One rectangular polygon covering the pixels x1..x2, y1..y2."""
    return [[x1, y1, x2 + 1, y1, x2 + 1, y2 + 1, x1, y2 + 1]]


def test_inclusive_convention() -> None:
    """Width is x2 - x1 + 1 in conversion and area."""
    boxes = BoxList([[10, 20, 19, 39]], (WIDTH, HEIGHT))
    assert boxes.convert("xywh").bbox.tolist() == [[10, 20, 10, 20]]
    assert boxes.area().tolist() == [200] == boxes.convert("xywh").area().tolist()


@settings(max_examples=30, deadline=None)
@given(boxes_strategy)
def test_round_trips(rows: list[tuple[int, int, int, int]]) -> None:
    """xyxy -> xywh -> xyxy and two flips give the same boxes."""
    boxes = boxes_of(rows)
    assert torch.equal(boxes.convert("xywh").convert("xyxy").bbox, boxes.bbox)
    for method in (FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM):
        assert torch.equal(boxes.transpose(method).transpose(method).bbox, boxes.bbox)
        assert torch.equal(boxes.transpose(method).area(), boxes.area())


@pytest.mark.parametrize("method", [FLIP_LEFT_RIGHT, FLIP_TOP_BOTTOM])
def test_flip_keeps_box_on_its_mask(method: int) -> None:
    """The flipped box is the extent of the flipped bitmap on both axes."""
    bitmap = torch.zeros((1, HEIGHT, WIDTH), dtype=torch.bool)
    bitmap[0, 5:21, 30:47] = True
    boxes = BoxList([[30, 5, 46, 20]], (WIDTH, HEIGHT))
    boxes.add_field("masks", SegmentationMask(bitmap, (WIDTH, HEIGHT), mode="mask"))
    flipped = boxes.transpose(method)
    ys, xs = flipped.get_field("masks").to_bitmaps()[0].nonzero().unbind(1)
    assert flipped.bbox[0].tolist() == [xs.min(), ys.min(), xs.max(), ys.max()]


def test_resize_equal_ratio_scales_the_current_mode() -> None:
    """With one ratio xywh widths scale directly; with two they go through xyxy."""
    boxes = BoxList([[10, 20, 19, 39]], (WIDTH, HEIGHT)).convert("xywh")
    assert boxes.resize((200, 160)).bbox.tolist() == [[20, 40, 20, 40]]
    assert boxes.resize((200, 80)).bbox.tolist() == [[20, 20, 19, 20]]


def test_clip_is_out_of_place_and_filters_fields() -> None:
    """Boxes outside and one-pixel boxes are dropped with their fields; the original is unchanged."""
    boxes = BoxList(
        [[-5, -5, 10, 10], [120, 10, 130, 20], [50, 50, 50, 60], [90, 70, 200, 200]], (WIDTH, HEIGHT)
    )
    boxes.add_field("labels", torch.tensor([1, 2, 3, 4]))
    clipped = boxes.clip_to_image()
    assert clipped.get_field("labels").tolist() == [1, 4]
    assert clipped.bbox.tolist() == [[0, 0, 10, 10], [90, 70, 99, 79]]
    assert boxes.bbox[0].tolist() == [-5, -5, 10, 10]
    assert len(boxes.clip_to_image(remove_empty=False)) == 4


def test_fields_of_wrong_length_and_missing_fields() -> None:
    """Errors name the field."""
    boxes = BoxList([[0, 0, 1, 1]], (WIDTH, HEIGHT))
    with pytest.raises(ValueError, match="'labels' has 2 entries for 1 boxes"):
        boxes.add_field("labels", torch.tensor([1, 2]))
    with pytest.raises(KeyError, match="no field 'scores'"):
        boxes.get_field("scores")
    with pytest.raises(KeyError):
        boxes.copy_with_fields(["scores"])
    assert boxes.copy_with_fields(["scores"], skip_missing=True).fields() == []


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.zeros((2, 5)), torch.zeros((1, 2, 4))])
def test_bad_shapes(bad: torch.Tensor) -> None:
    """Only (N,4) is taken."""
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        BoxList(bad, (WIDTH, HEIGHT))


def test_empty_list_goes_through_everything() -> None:
    """No boxes: every operation gives no boxes."""
    boxes = BoxList([], (WIDTH, HEIGHT))
    boxes.add_field("masks", SegmentationMask([], (WIDTH, HEIGHT)))
    boxes.add_field("labels", torch.zeros(0, dtype=torch.int64))
    for out in (
        boxes.resize((31, 17)),
        boxes.transpose(0),
        boxes.crop((5, 5, 20, 20)),
        boxes.clip_to_image(),
        boxes[torch.zeros(0, dtype=torch.bool)],
        remove_small_boxes(boxes, 3),
        cat_boxlist([boxes, boxes]),
        boxes.to("cpu"),
    ):
        assert len(out) == 0 and len(out.get_field("masks")) == 0
    assert boxlist_iou(boxes, boxes).shape == (0, 0)


@settings(max_examples=20, deadline=None)
@given(boxes_strategy, boxes_strategy)
def test_iou_against_pixel_counting(
    rows_a: list[tuple[int, int, int, int]], rows_b: list[tuple[int, int, int, int]]
) -> None:
    """The IoU of boxes with integer corners equals counting pixels."""
    a, b = boxes_of(rows_a), boxes_of(rows_b)
    grids = []
    for boxes in (a, b):
        grid = torch.zeros((len(boxes), HEIGHT * WIDTH))
        for row, (x1, y1, x2, y2) in zip(grid, boxes.bbox.long().tolist(), strict=True):
            row.view(HEIGHT, WIDTH)[y1 : y2 + 1, x1 : x2 + 1] = 1
        grids.append(grid)
    inter = grids[0] @ grids[1].T
    union = grids[0].sum(1)[:, None] + grids[1].sum(1)[None] - inter
    assert torch.allclose(boxlist_iou(a, b), inter / union)


def test_iou_of_half_precision_does_not_overflow() -> None:
    """Areas beyond 65504 are worked out in float32."""
    box = torch.tensor([[0, 0, 1000, 1000]], dtype=torch.float16)
    assert box_iou(box, box).item() == 1.0


def test_cat_and_index() -> None:
    """Joining keeps order and fields (masks too); other fields are refused."""
    first = BoxList([[0, 0, 9, 9], [10, 10, 19, 19]], (WIDTH, HEIGHT))
    first.add_field("masks", SegmentationMask([rectangle(0, 0, 9, 9), rectangle(10, 10, 19, 19)], first.size))
    both = cat_boxlist([first[[1]], first[0]])
    assert both.bbox[:, 0].tolist() == [10, 0]
    assert both.get_field("masks").to_bitmaps().flatten(1).float().argmax(1).tolist() == [10 * WIDTH + 10, 0]
    with pytest.raises(ValueError, match="must agree"):
        cat_boxlist([first, first.copy_with_fields([])])
    with pytest.raises(ValueError, match="different size"):
        boxlist_iou(first, first.resize((50, 50)))
