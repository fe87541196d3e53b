"""The code base against the reference outputs of the original programs (golden/)."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.checker import FAIL, OK, UNSUPPORTED
from checks.run import find_jobs, run_folder

GOLDEN = Path(__file__).with_name("golden")
# Jobs that take more than a few seconds beyond the one Mask R-CNN that stands for the others.
SLOW = {
    "faster_rcnn_r50_c4_eval",
    "faster_rcnn_r50_c4_train",
    "mask_rcnn_r50_fpn_gn_eval",
    "mask_rcnn_r50_fpn_gn_train",
    "retinanet_r50_fpn_eval",
    "retinanet_r50_fpn_train",
    "mask_rcnn_r50_fpn_mdconv_eval",
    "mask_rcnn_r50_fpn_mdconv_train",
    "keypoint_rcnn_r50_fpn_eval",
    "keypoint_rcnn_r50_fpn_train",
    "fcos_r50",
    "fcos_imprv_r50",
    "mmdet_r50_gn_800",
    "mmdet_plusplus_r101_ssd",
}
JOBS = [
    pytest.param(folder, name, id=f"{folder}-{name}", marks=[pytest.mark.slow] if name in SLOW else [])
    for folder in ("core", "lst", "sipmask")
    for name in (job.name for job in find_jobs(GOLDEN / folder))
]


@pytest.mark.parametrize(("folder", "name"), JOBS)
def test_reference(folder: str, name: str) -> None:
    checks = list(run_folder(GOLDEN / folder, fast=True, only=name))
    assert checks
    failed = [check.line() for check in checks if check.status == FAIL]
    assert not failed


@pytest.mark.slow
def test_large_mask_layer() -> None:
    checks = list(run_folder(GOLDEN / "lst", only="model"))
    assert {check.status for check in checks} == {OK}
    assert any("mask_logits_strided" in check.name for check in checks)


def test_no_component_is_missing() -> None:
    checks = [
        c for part in ("components", "params") for c in run_folder(GOLDEN / "core", fast=True, only=part)
    ]
    missing = {check.name for check in checks if check.status == UNSUPPORTED}
    assert missing == set()
