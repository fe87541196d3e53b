"""Keys of RetinaNet that do not fit each other."""

from __future__ import annotations

from typing import Any

import pytest

from maskrcnn_benchmark.config.checks.general import check_config
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.load import clone_with
from maskrcnn_benchmark.utils.errors import ConfigError

BASE = ("MODEL.RETINANET_ON", True, "MODEL.BACKBONE.CONV_BODY", "R-50-FPN-RETINANET")


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (("MODEL.BACKBONE.CONV_BODY", "R-50-FPN"), "CONV_BODY R-50-FPN has the neck fpn, which does not fit"),
        (
            ("MODEL.RETINANET_ON", False),
            "fpn_p6p7, which does not fit MODEL.HEAD rcnn: .* fits MODEL.HEAD fcos or retinanet or",
        ),
        (("MODEL.MASK_ON", True), "MODEL.MASK_ON adds an RoI mask head, but the model of MODEL.RETINANET_ON"),
        (("MODEL.RETINANET.ANCHOR_SIZES", (32, 64)), "ANCHOR_SIZES has 2 entries, .*ANCHOR_STRIDES 5"),
        (("MODEL.RETINANET.NUM_CLASSES", 1), "NUM_CLASSES must be at least 2"),
        (("MODEL.RETINANET.BG_IOU_THRESHOLD", 0.6), "RETINANET.BG_IOU_THRESHOLD .0.6. must not be above"),
        (("MODEL.RETINANET.SCALES_PER_OCTAVE", 0), "SCALES_PER_OCTAVE must be at least 1"),
        (("MODEL.RETINANET.LOSS_ALPHA", 1.5), "LOSS_ALPHA must be between 0 and 1, got 1.5"),
        (("MODEL.RETINANET.PRIOR_PROB", 0.0), "PRIOR_PROB must lie between 0 and 1"),
        (("MODEL.RETINANET.BBOX_REG_WEIGHT", 0.0), "BBOX_REG_WEIGHT must be above 0"),
        (("LST.ENABLED", True), "LST.ENABLED trains in phases, which needs a two-stage model"),
    ],
)
def test_bad_settings(pairs: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(clone_with(get_cfg(), [*BASE, *pairs]))
