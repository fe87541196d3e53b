"""Combinations of keys that spoil results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.doctor.pitfalls import check_pitfalls

HEADS = "MODEL.ROI_HEADS"


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        (("INPUT.TO_BGR255", False), "pixels are RGB in 0..1"),
        (
            ("INPUT.PIXEL_MEAN", "[0.4, 0.4, 0.4]", "INPUT.PIXEL_STD", "[0.2, 0.2, 0.2]"),
            "pixels are BGR in 0..255",
        ),
        (("INPUT.PIXEL_STD", "[1.0, 1.0, 1.0]"), "from -123 to 153"),
        (("MODEL.RPN.FPN_POST_NMS_PER_BATCH", True), "have together 50 proposals, 12 each"),
        ((f"{HEADS}.DETECTIONS_PER_IMG", 0), "has no limit"),
        (("MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS", True), "masks are pasted"),
        (("MODEL.RPN.ANCHOR_SIZES", "(100, 200, 300, 400, 500)"), "below half the smallest"),
        (("MODEL.RPN.ANCHOR_SIZES", "(1, 2, 3, 4, 5)"), "above twice the largest"),
    ],
)
def test_pitfalls(plain, the, pairs: tuple[object, ...], text: str) -> None:
    finding = the(check_pitfalls, plain(*pairs), "warning", text)
    assert finding.advice and finding.keys


def test_augmentation_at_test_time_needs_boxes(plain, the) -> None:
    finding = the(
        check_pitfalls,
        plain("TEST.BBOX_AUG.ENABLED", True, "MODEL.RPN_ONLY", True),
        "error",
        "needs a box head",
    )
    assert finding.advice == "set TEST.BBOX_AUG.ENABLED False"


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_float16_on_a_cpu(plain, the) -> None:
    assert the(check_pitfalls, plain("DTYPE", "float16"), "warning", "float16 on a CPU")
    assert the(check_pitfalls, plain("DTYPE", "float16"), "note", "updates may be skipped")


def test_detections_of_lvis_size(plain, the, worst, edited, data: Path) -> None:
    def many(content: dict) -> None:
        content["categories"] += [{"id": i, "name": f"c{i}", "frequency": "r"} for i in range(100, 500)]

    test = ("DATASETS.TEST", f"('lvis:{edited(many, 'val')}@{data}/images/val',)")
    finding = the(check_pitfalls, plain(*test), "warning", "20 detections per image for 406 LVIS categories")
    assert finding.advice == f"set {HEADS}.DETECTIONS_PER_IMG 300"
    enough = (*test, f"{HEADS}.DETECTIONS_PER_IMG", 300)
    assert worst(check_pitfalls, plain(*enough)) == []
    checkup = plain(*enough, f"{HEADS}.SCORE_THRESH", 0.05)
    assert the(check_pitfalls, checkup, "warning", "rare ones score low").keys == (f"{HEADS}.SCORE_THRESH",)


@pytest.mark.parametrize(
    ("pairs", "level", "text"),
    [
        (("LST.SCORE_THRESH_STEP", 0.05), "note", "the release keeps all"),
        (("LST.FREEZE_STEP", 2), "note", "parts of the backbone train"),
        (("LST.REPLAY.ENABLED", False), "warning", "LST.REPLAY switched off"),
        (
            ("LST.REPLAY.ENABLED", False, "LST.DISTILL.ENABLED", False),
            "warning",
            "LST.REPLAY and LST.DISTILL",
        ),
        (("LST.VAL_IMAGES", "positive"), "note", "different images"),
        (("LST.PHASES", "(1,)"), "note", "only the phases [1]"),
    ],
)
def test_long_tail_traps(lst, the, pairs: tuple[object, ...], level: str, text: str) -> None:
    assert the(check_pitfalls, lst(*pairs), level, text).keys[0].startswith("LST.")


def test_sound_configurations_have_no_problem(plain, lst, worst) -> None:
    assert worst(check_pitfalls, plain()) == worst(check_pitfalls, lst()) == []
