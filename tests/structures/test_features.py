"""Feature specs: the one number of channels that shared layers need."""

from __future__ import annotations

import pytest

from maskrcnn_benchmark.structures.features import FeatureSpec, common_channels


def test_common_channels() -> None:
    assert common_channels([FeatureSpec(16, 4), FeatureSpec(16, 8)]) == 16
    with pytest.raises(ValueError, match=r"\[16, 32\] channels"):
        common_channels([FeatureSpec(16, 4), FeatureSpec(32, 8)])
    with pytest.raises(ValueError, match="equal ones"):
        common_channels([])
