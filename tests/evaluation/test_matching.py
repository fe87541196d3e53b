"""Native matching and accumulation against the rules written out, for any IoUs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_benchmark.evaluation.matching import (
    FALSE_POSITIVE,
    IGNORED,
    TRUE_POSITIVE,
    accumulate,
    match_pairs,
)
from maskrcnn_benchmark.evaluation.pairs import ImageCategoryPairs

THRESHOLDS = np.array([0.25, 0.5, 1.0])
RANGES = np.array([[0.0, 1e10], [0.0, 4.0], [4.0, 9.0]])
RECALL_POINTS = np.linspace(0, 1, 11)


def random_pairs(seed: int, categories: int = 3, images: int = 4, most: int = 5) -> ImageCategoryPairs:
    """Pairs with few distinct IoUs, areas and scores, so that ties are everywhere."""
    rng = np.random.default_rng(seed)
    dets, gts = rng.integers(0, most + 1, (2, categories * images))
    filled = (dets > 0) | (gts > 0)
    places, dets, gts = np.repeat(np.arange(categories), images)[filled], dets[filled], gts[filled]
    total, truths = int(dets.sum()), int(gts.sum())
    scores = [np.sort(rng.integers(0, 4, n) / 4.0)[::-1] for n in dets]
    return ImageCategoryPairs(
        categories=places,
        det_start=np.concatenate([[0], np.cumsum(dets)]).astype(np.int64),
        gt_start=np.concatenate([[0], np.cumsum(gts)]).astype(np.int64),
        scores=np.concatenate([np.zeros(0), *scores]),
        det_areas=rng.integers(1, 11, total).astype(float),
        det_rank=np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in dets)]),
        ignore_unmatched=rng.random(total) < 0.2,
        gt_areas=rng.integers(1, 11, truths).astype(float),
        gt_ignore=rng.random(truths) < 0.3,
        gt_crowd=rng.random(truths) < 0.2,
        ious=rng.choice([0.0, 0.25, 0.5, 0.5, 0.75, 1.0], int((dets * gts).sum())),
    )


def plain_outcome(pairs: ImageCategoryPairs, area: int, threshold: float) -> tuple[list[int], list[bool]]:
    """Outcome of each detection and whether each ground truth is ignored, one decision after another."""
    low, high = RANGES[area]
    gt_ignored = [
        bool(flag or size < low or size > high)
        for flag, size in zip(pairs.gt_ignore, pairs.gt_areas, strict=True)
    ]
    outcome, base = [], 0
    for pair in range(len(pairs.categories)):
        truths = range(pairs.gt_start[pair], pairs.gt_start[pair + 1])
        taken: set[int] = set()
        for det in range(pairs.det_start[pair], pairs.det_start[pair + 1]):
            iou = dict(zip(truths, pairs.ious[base : base + len(truths)].tolist(), strict=True))
            base += len(truths)
            fits = [
                g
                for g in truths
                if iou[g] >= min(threshold, 1 - 1e-10) and (g not in taken or pairs.gt_crowd[g])
            ]
            # regular before ignored, then the best IoU, then the later one
            best = max(fits, key=lambda g: (not gt_ignored[g], iou[g], g), default=None)
            if best is not None:
                taken.add(best)
                outcome.append(IGNORED if gt_ignored[best] else TRUE_POSITIVE)
            else:
                outside = not low <= pairs.det_areas[det] <= high
                outcome.append(IGNORED if outside or pairs.ignore_unmatched[det] else FALSE_POSITIVE)
    return outcome, gt_ignored


def plain_curve(rows: list[int], outcome: list[int], positives: int) -> tuple[list[float], float]:
    """Precision at RECALL_POINTS and the final recall of detections `rows`, by descending score."""
    right = wrong = 0
    curve = []
    for row in rows:
        right += outcome[row] == TRUE_POSITIVE
        wrong += outcome[row] == FALSE_POSITIVE
        curve.append((right / positives, right / (wrong + right + np.spacing(1))))
    values = [max([p for r, p in curve[i:]]) for i in range(len(curve))]
    matched = [next((i for i, (r, _) in enumerate(curve) if r >= point), None) for point in RECALL_POINTS]
    return [0.0 if i is None else values[i] for i in matched], right / positives


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6))
def test_matching_follows_the_rules(seed: int) -> None:
    pairs = random_pairs(seed)
    matches = match_pairs(pairs, THRESHOLDS, RANGES)
    for area in range(len(RANGES)):
        for level, threshold in enumerate(THRESHOLDS):
            outcome, gt_ignored = plain_outcome(pairs, area, threshold)
            assert matches.outcome[area, level].tolist() == outcome
            assert matches.gt_ignored[area].tolist() == gt_ignored


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6))
def test_accumulation_follows_the_rules(seed: int) -> None:
    pairs, limits = random_pairs(seed), (1, 3, None)
    matches = match_pairs(pairs, THRESHOLDS, RANGES)
    precision, recall = accumulate(
        pairs, matches, num_categories=4, recall_points=RECALL_POINTS, max_dets=limits
    )
    category_of = np.repeat(pairs.categories, np.diff(pairs.det_start))
    truth_of = np.repeat(pairs.categories, np.diff(pairs.gt_start))
    for category in range(4):
        mine = [int(d) for d in np.flatnonzero(category_of == category)]
        mine.sort(key=lambda d: -pairs.scores[d])
        for area in range(len(RANGES)):
            positives = int((~matches.gt_ignored[area][truth_of == category]).sum())
            for level in range(len(THRESHOLDS)):
                for slot, limit in enumerate(limits):
                    got = precision[level, :, category, area, slot]
                    if positives == 0:
                        assert set(got) == {-1.0} and recall[level, category, area, slot] == -1.0
                        continue
                    rows = [d for d in mine if limit is None or pairs.det_rank[d] < limit]
                    values, last = plain_curve(rows, matches.outcome[area, level].tolist(), positives)
                    assert got.tolist() == values
                    assert recall[level, category, area, slot] == last


def test_number_of_threads_does_not_matter() -> None:
    pairs = random_pairs(1, categories=40, images=30)
    before = torch.get_num_threads()
    matched: list[Any] = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            matches = match_pairs(pairs, THRESHOLDS, RANGES)
            curves = accumulate(
                pairs, matches, num_categories=40, recall_points=RECALL_POINTS, max_dets=(None,)
            )
            matched.append((matches.outcome, matches.gt_ignored, *curves))
    finally:
        torch.set_num_threads(before)
    for other in matched[1:]:
        for mine, first in zip(other, matched[0], strict=True):
            np.testing.assert_array_equal(mine, first)


def test_nan_score_and_decreasing_recall_points_are_errors() -> None:
    pairs = random_pairs(2)
    matches = match_pairs(pairs, THRESHOLDS, RANGES)
    with pytest.raises(ValueError, match="recall_points must not decrease"):
        accumulate(pairs, matches, num_categories=3, recall_points=np.array([0.5, 0.1]), max_dets=(1,))
    pairs.scores[0] = np.nan
    with pytest.raises(ValueError, match="score 0 is NaN"):
        accumulate(pairs, matches, num_categories=3, recall_points=RECALL_POINTS, max_dets=(1,))
