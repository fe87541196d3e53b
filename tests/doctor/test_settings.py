"""Every key has a meaning, every setting a source, and settings without effect are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.keys import leaves
from maskrcnn_benchmark.doctor.key_docs import key_meanings, meaning_of
from maskrcnn_benchmark.doctor.settings import COMMAND_LINE, trace_settings
from maskrcnn_benchmark.doctor.unused import RULES, check_unused

KEYS = [key for key, _ in leaves(get_cfg())]


def test_every_key_has_a_comment_and_every_comment_a_key() -> None:
    assert [key for key in KEYS if not key_meanings().get(key)] == []
    assert set(key_meanings()) == set(KEYS)


def test_comments_of_all_forms_are_found() -> None:
    assert meaning_of("SOLVER.MAX_ITER") == "iterations of the run"
    assert meaning_of("LST.SOLVER_STEP.MAX_ITER") == "iterations of the run"
    assert meaning_of("PATHS_CATALOG").startswith("user's Python file")  # inside a value of several lines
    assert meaning_of("DATASETS.REGISTER.mine.KIND").startswith("Data sets of the user")  # above the value
    assert meaning_of("MODEL.RPN.PRE_NMS_TOP_N_TEST").endswith("before NMS, training; the same, testing")
    assert meaning_of("NO.SUCH") == ""


def test_source_is_the_last_file_that_changed_the_value(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("SEED: 1\nDTYPE: bfloat16\nSOLVER: {MAX_ITER: 7, GAMMA: 0.1}\n")
    top = tmp_path / "top.yaml"
    top.write_text("_BASE_: base.yaml\nSEED: 2\nDTYPE: bfloat16\nMODEL: {MASK_ON: True}\n")
    settings, notes = trace_settings(top, ["MODEL.MASK_ON", "False", "LST.SOLVER_BASE.MAX_ITER", "3"])
    found = {s.key: (s.value, s.default, s.source) for s in settings}
    base = str(tmp_path / "base.yaml")
    assert found == {
        "SEED": (2, 0, str(top)),
        "DTYPE": ("bfloat16", "float32", base),  # top gives the value that it has already
        "SOLVER.MAX_ITER": (7, 40000, base),
        "LST.SOLVER_BASE.MAX_ITER": (3, None, COMMAND_LINE),
    }
    assert notes == []


def test_outdated_keys_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text("SOLVER: {STEPS: }\nMODEL: {BACKBONE: {OUT_CHANNELS: 256}}\n")
    _, notes = trace_settings(path, [])
    assert len(notes) == 2 and all(str(path) in line for line in notes)


def test_every_rule_names_keys() -> None:
    for rule in RULES:
        for own in rule.keys:
            assert any(key == own or (own.endswith(".") and key.startswith(own)) for key in KEYS), own


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        (("MODEL.RETINANET.OCTAVE", 3.0), "RETINANET_ON"),
        (("MODEL.RPN_ONLY", True, "MODEL.ROI_MASK_HEAD.USE_GN", True), "there is no mask head"),
        (("SOLVER.LR_SCHEDULER", "cosine"), "LR_SCHEDULER is cosine"),
        (("SOLVER.CLIP_GRADIENTS.VALUE", 2.0), "CLIP_GRADIENTS.ENABLED is False"),
        (("LST.BASE_SIZE", 3), "LST.ENABLED is False"),
        (("TEST.DETECTIONS_PER_IMG", 300), "the model is two-stage"),
        (("MODEL.RETINANET.USE_C5", False), "the neck is not fpn_p6p7"),
        (("MODEL.FCOS.NUM_CONVS", 2), "FCOS_ON is False"),
        (("MODEL.SIPMASK.MASK_TH", 0.5), "SIPMASK_ON is False"),
        (("MODEL.RESNETS.DCN_INTERVAL", 3), "no stage is deformable"),
        (("SOLVER.DCONV_OFFSETS_LR_FACTOR", 0.1), "no convolution predicts offsets"),
        (("INPUT.MIN_SIZE_RANGE_TRAIN", (640, 800), "INPUT.MIN_SIZE_TRAIN", (700,)), "another key"),
        (("INPUT.FIXED_SIZE_TEST", (544, 544), "INPUT.MIN_SIZE_TEST", 700), "FIXED_SIZE_TEST gives"),
        (("INPUT.SSD_AUG.HUE_DELTA", 9.0), "SSD_AUG.ENABLED is False"),
        (("MODEL.DISTILL_WEIGHTS_FILE", "logits.json"), "LST.DISTILL.FILE"),
        (("AMP_VERBOSE", True), "read from published files"),
        (("MODEL.FEW_SHOT.ScaleCls", 5.0), "no cosine classifier"),
    ],
)
def test_settings_without_effect(plain, the, pairs: tuple[object, ...], reason: str) -> None:
    finding = the(check_unused, plain(*pairs), "note", reason)
    assert set(finding.keys) & {str(pairs[-2]), "SOLVER.STEPS"}


@pytest.mark.parametrize(
    ("pairs", "key"),
    [
        (("MODEL.BACKBONE.FREEZE_CONV_BODY_AT", 3), "MODEL.BACKBONE.FREEZE_CONV_BODY_AT"),
        (("LST.REPLAY.EPOCHS", 3, "LST.SOLVER_STEP.MAX_ITER", 5), "LST.REPLAY.EPOCHS"),
        (("LST.SOLVER_BASE.MAX_ITER", 60), "SOLVER.MAX_ITER"),
        (("LST.DISTILL.ENABLED", False, "LST.DISTILL.WEIGHT", 2.0), "LST.DISTILL.WEIGHT"),
    ],
)
def test_settings_without_effect_in_phases(lst, pairs: tuple[object, ...], key: str) -> None:
    assert key in [
        k for f in check_unused(lst(*pairs)) if f.text.startswith("without effect") for k in f.keys
    ]


def test_a_published_step_file_is_told_to_train_in_phases(plain, the) -> None:
    pairs = ("MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "FPN2MLPCosineFeatureExtractor")
    checkup = plain(*pairs, "MODEL.USE_DISTILL", True, "MODEL.QRY_BALANCE", True)
    assert "LST.DISTILL.ENABLED" in the(check_unused, checkup, "warning", "MODEL.USE_DISTILL is True").advice
    assert "LST.REPLAY.ENABLED" in the(check_unused, checkup, "warning", "MODEL.QRY_BALANCE is True").advice


def test_settings_can_be_written_as_json(lst) -> None:
    assert json.dumps([s.value for s in lst().settings])
