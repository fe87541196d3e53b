"""Groups of categories and their AP."""

from __future__ import annotations

import numpy as np
import pytest

from maskrcnn_benchmark.evaluation.ap import APResult
from maskrcnn_benchmark.evaluation.groups import frequency_groups, group_ap, instance_bins, step_state_groups


def test_instance_bins_edges() -> None:
    counts = {1: 1, 2: 9, 3: 10, 4: 99, 5: 100, 6: 999, 7: 1000, 8: 26148, 9: 0}
    assert instance_bins(counts) == {
        "(0,10)": [1, 2],
        "[10,100)": [3, 4],
        "[100,1000)": [5, 6],
        "[1000,inf)": [7, 8],
    }


def test_frequency_and_step_state() -> None:
    categories = [
        {"id": 4, "frequency": "r", "step_state": "t0"},
        {"id": 2, "frequency": "f", "step_state": "b0"},
        {"id": 9, "frequency": "r"},
    ]
    assert frequency_groups(categories) == {"rare": [4, 9], "common": [], "frequent": [2]}
    assert step_state_groups(categories) == {"t0": [4], "b0": [2]}
    assert frequency_groups([{"id": 1}]) == {}
    assert step_state_groups([{"id": 1}]) == {}


def test_group_ap_is_the_mean_of_its_defined_categories() -> None:
    precision = np.full((10, 101, 3, 4), -1.0)
    precision[:, :, 0] = 0.2
    precision[:, :, 2] = 0.6
    result = APResult(precision, np.full((10, 3, 4), -1.0), np.array([3, 5, 8]), "lvis", "bbox", "box", 0)
    groups = {"a": [3, 8], "b": [3, 5], "none": [], "undefined": [5], "unknown": [77]}
    values = group_ap(result, groups)
    assert values["a"] == pytest.approx(0.4)
    assert values["b"] == pytest.approx(0.2)
    assert values["none"] == values["undefined"] == values["unknown"] == -1.0
    assert result.per_category() == {3: pytest.approx(0.2), 5: -1.0, 8: pytest.approx(0.6)}
