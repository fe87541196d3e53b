"""Assignment of ground truth to predictions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.modeling import matcher as module
from maskrcnn_benchmark.modeling.matcher import BELOW_LOW_THRESHOLD, BETWEEN_THRESHOLDS, Matcher
from maskrcnn_benchmark.structures import box_iou


def slow_match(quality: Tensor, high: float, low: float, low_quality: bool) -> list[int]:
    """The rule written out for one prediction after the other."""
    results = []
    for column in range(quality.shape[1]):
        best = int(quality[:, column].argmax())
        value = float(quality[best, column])
        promoted = low_quality and any(
            quality[row, column] == quality[row].max() for row in range(quality.shape[0])
        )
        results.append(
            best if promoted or value >= high else BETWEEN_THRESHOLDS if value >= low else BELOW_LOW_THRESHOLD
        )
    return results


@pytest.mark.parametrize(("high", "low"), [(0.7, 0.3), (0.5, 0.5)])
@pytest.mark.parametrize("low_quality", [True, False])
def test_against_slow_rule(high: float, low: float, low_quality: bool) -> None:
    torch.manual_seed(0)
    for _ in range(20):
        quality = (torch.rand(5, 40) * 10).round() / 10 + torch.rand(5, 1) * 1e-3
        matches = Matcher(high, low, allow_low_quality=low_quality)(quality)
        assert matches.tolist() == slow_match(quality, high, low, low_quality)


def test_groups_of_ground_truth_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    corner = torch.rand(60, 2) * 60
    boxes = torch.cat((corner, corner + 5 + torch.rand(60, 2) * 40), dim=1)
    matcher = Matcher(0.5, 0.3, allow_low_quality=True)
    whole = matcher.match(boxes[:13], boxes[13:])
    assert torch.equal(whole, matcher(box_iou(boxes[:13], boxes[13:])))
    monkeypatch.setattr(module, "MAX_PAIRS", 100)
    assert torch.equal(matcher.match(boxes[:13], boxes[13:]), whole)


def test_zero_iou_quirk_is_a_switch() -> None:
    quality = torch.tensor([[0.9, 0.2, 0.0], [0.0, 0.0, 0.0]])
    assert Matcher(0.7, 0.3, allow_low_quality=True)(quality).tolist() == [0, 0, 0]
    clean = Matcher(0.7, 0.3, allow_low_quality=True, zero_iou_matches=False)
    assert clean(quality).tolist() == [0, BELOW_LOW_THRESHOLD, BELOW_LOW_THRESHOLD]


def test_nothing_on_either_side() -> None:
    matcher = Matcher(0.7, 0.3, allow_low_quality=True)
    assert matcher.match(torch.zeros(0, 4), torch.zeros(3, 4)).tolist() == [BELOW_LOW_THRESHOLD] * 3
    assert matcher.match(torch.zeros(2, 4), torch.zeros(0, 4)).shape == (0,)
    assert matcher(torch.full((1, 2), float("nan"))).tolist() == [BELOW_LOW_THRESHOLD] * 2


def test_thresholds_in_wrong_order() -> None:
    with pytest.raises(ValueError, match="above"):
        Matcher(0.3, 0.7)
