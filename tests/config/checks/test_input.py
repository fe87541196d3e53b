"""Sizes and changes of images that cannot be are refused before a run."""

from __future__ import annotations

import pytest

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.utils.errors import ConfigError

ON = ("INPUT.SSD_AUG.ENABLED", "True")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("INPUT.INTERPOLATION", "cv2"), "INPUT.INTERPOLATION must be pillow or opencv, got 'cv2'"),
        (("INPUT.MIN_SIZE_RANGE_TRAIN", "(800, 640)"), r"MIN_SIZE_RANGE_TRAIN needs .* got \(800, 640\)"),
        (("INPUT.MIN_SIZE_RANGE_TRAIN", "(-1, 640)"), "INPUT.MIN_SIZE_RANGE_TRAIN needs"),
        (("INPUT.MIN_SIZE_RANGE_TRAIN", "(0, 0)"), "INPUT.MIN_SIZE_RANGE_TRAIN needs"),
        (("INPUT.MIN_SIZE_RANGE_TRAIN", "(640.5, 800)"), "INPUT.MIN_SIZE_RANGE_TRAIN needs"),
        (("INPUT.MIN_SIZE_RANGE_TRAIN", "(640,)"), "INPUT.MIN_SIZE_RANGE_TRAIN needs"),
        (("INPUT.FIXED_SIZE_TRAIN", "(576, 0)"), "INPUT.FIXED_SIZE_TRAIN needs a width and a height"),
        (("INPUT.FIXED_SIZE_TEST", "(-1, -1)"), "INPUT.FIXED_SIZE_TEST needs"),
        (("INPUT.FIXED_SIZE_TEST", "(1, 2, 3)"), "INPUT.FIXED_SIZE_TEST needs"),
        (("INPUT.SSD_AUG.HUE_DELTA", "-1"), "INPUT.SSD_AUG.HUE_DELTA must be at least 0"),
        (("INPUT.SSD_AUG.BRIGHTNESS_DELTA", "nan"), "INPUT.SSD_AUG.BRIGHTNESS_DELTA"),
        (("INPUT.SSD_AUG.CONTRAST_RANGE", "(1.5, 0.5)"), "CONTRAST_RANGE needs a minimum and a maximum"),
        (("INPUT.SSD_AUG.EXPAND_RANGE", "(0.5, 4)"), "EXPAND_RANGE needs .* from 1 on"),
        (("INPUT.SSD_AUG.EXPAND_RANGE", "(1, 2, 4)"), "EXPAND_RANGE needs"),
        (("INPUT.SSD_AUG.CROP_MIN_IOUS", "(0.1, 1.5)"), "CROP_MIN_IOUS must lie above 0"),
        (("INPUT.SSD_AUG.CROP_MIN_SIDE", "0"), "CROP_MIN_SIDE must lie above 0"),
        ((*ON, "MODEL.QRY_BALANCE", "True"), "crops objects away that MODEL.QRY_BALANCE samples"),
        ((*ON, "MODEL.USE_DISTILL", "True"), "MODEL.USE_DISTILL"),
    ],
)
def test_refused(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ("INPUT.MIN_SIZE_RANGE_TRAIN", "(640, 640)"),
        ("INPUT.FIXED_SIZE_TRAIN", "(1, 2)", "INPUT.FIXED_SIZE_TEST", "(544, 544)"),
        (*ON, "INPUT.SSD_AUG.CROP_MIN_IOUS", "()", "INPUT.SSD_AUG.EXPAND_RANGE", "(1, 1)"),
    ],
)
def test_allowed(overrides: tuple[str, ...]) -> None:
    load_config(None, overrides)
