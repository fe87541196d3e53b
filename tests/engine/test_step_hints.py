"""What the training step says about a config."""

from __future__ import annotations

import re

import pytest

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.engine.step import few_proposals


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), "2000 is shared by the 16 images of a process: 125 proposals each.* 512"),
        (("MODEL.RPN.FPN_POST_NMS_PER_BATCH", False), ""),
        (("MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN", 16000), ""),
        (("SOLVER.IMS_PER_BATCH", 2), ""),
        (("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 125), ""),
        (("MODEL.RPN.ANCHOR_STRIDE", (16,)), ""),
        (("MODEL.RPN_ONLY", True), ""),
    ],
)
def test_few_proposals(overrides: tuple, expected: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.RPN.ANCHOR_STRIDE", (4, 8, 16, 32, 64), *overrides])
    assert re.search(expected, few_proposals(cfg)) if expected else few_proposals(cfg) == ""
