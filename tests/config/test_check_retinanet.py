"""Settings of RetinaNet that do not fit each other, and which key counts the classes."""

from __future__ import annotations

from typing import Any

import pytest

from maskrcnn_benchmark.config.check import check_config
from maskrcnn_benchmark.config.classes import class_count, class_count_key, has_region_heads
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.utils.errors import ConfigError

BASE = ("MODEL.RETINANET_ON", True, "MODEL.BACKBONE.CONV_BODY", "R-50-FPN-RETINANET")


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (("MODEL.BACKBONE.CONV_BODY", "R-50-FPN"), "CONV_BODY that ends in -FPN-RETINANET .* found R-50-FPN"),
        (
            ("MODEL.RETINANET_ON", False),
            "R-50-FPN-RETINANET needs MODEL.RETINANET_ON or MODEL.FCOS_ON or .* True",
        ),
        (("MODEL.MASK_ON", True), "MODEL.MASK_ON: the model of MODEL.RETINANET_ON finds boxes alone"),
        (("MODEL.RETINANET.ANCHOR_SIZES", (32, 64)), "ANCHOR_SIZES has 2 entries, .*ANCHOR_STRIDES 5"),
        (("MODEL.RETINANET.NUM_CLASSES", 1), "NUM_CLASSES must be at least 2"),
        (("MODEL.RETINANET.SCALES_PER_OCTAVE", 0), "SCALES_PER_OCTAVE must be at least 1"),
        (("MODEL.RETINANET.LOSS_ALPHA", 1.5), "LOSS_ALPHA must be between 0 and 1, found 1.5"),
        (("MODEL.RETINANET.PRIOR_PROB", 0.0), "PRIOR_PROB must lie between 0 and 1"),
        (("MODEL.RETINANET.BBOX_REG_WEIGHT", 0.0), "BBOX_REG_WEIGHT must be above 0"),
        (("LST.ENABLED", True), "LST.ENABLED needs a two-stage model"),
    ],
)
def test_bad_settings(pairs: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(clone_with(get_cfg(), [*BASE, *pairs]))


@pytest.mark.parametrize(
    ("pairs", "key", "heads"),
    [
        ((), "MODEL.ROI_BOX_HEAD.NUM_CLASSES", True),
        (("MODEL.RPN_ONLY", True), None, False),
        (("MODEL.RPN_ONLY", True, *BASE), "MODEL.RETINANET.NUM_CLASSES", False),
    ],
)
def test_key_of_the_class_count(pairs: tuple[Any, ...], key: str | None, heads: bool) -> None:
    cfg = clone_with(get_cfg(), list(pairs))
    assert class_count_key(cfg) == key and has_region_heads(cfg) == heads
    assert class_count(cfg) == (None if key is None else 81)
