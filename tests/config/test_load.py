"""config.load and merge: what is accepted, and what the errors say."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.load import clone_with, dump_config, load_config, save_config
from maskrcnn_benchmark.utils.errors import ConfigError


def _load(tmp_path: Path, text: str, *overrides: str) -> Any:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return load_config(path, overrides)


def _error(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        _load(tmp_path, text, *overrides)
    message = str(error.value)
    assert "\n" not in message
    return message.replace(str(tmp_path) + "/", "")


def test_defaults_and_frozen() -> None:
    cfg = load_config(None)
    assert cfg == get_cfg()
    with pytest.raises(AttributeError):
        cfg.SEED = 3


def test_values_take_the_type_of_their_default(tmp_path: Path) -> None:
    cfg = _load(
        tmp_path,
        """
SOLVER: {BASE_LR: 1, STEPS: "(60000, 80000)", WEIGHT_DECAY: 1e-4, GAMMA: "0.5"}
INPUT:
  MIN_SIZE_TRAIN: 640
  PIXEL_STD: (1, 2, 3)
DATASETS:
  TRAIN: ("coco_2014_train",)
  TEST: coco_2014_minival
OUTPUT_DIR: "2020"
""",
    )
    assert cfg.SOLVER.BASE_LR == 1.0 and isinstance(cfg.SOLVER.BASE_LR, float)
    assert cfg.SOLVER.STEPS == (60000, 80000)
    assert cfg.SOLVER.WEIGHT_DECAY == 1e-4 and cfg.SOLVER.GAMMA == 0.5
    assert cfg.INPUT.MIN_SIZE_TRAIN == (640,)
    assert cfg.INPUT.PIXEL_STD == [1.0, 2.0, 3.0] and isinstance(cfg.INPUT.PIXEL_STD[0], float)
    assert cfg.DATASETS.TRAIN == ("coco_2014_train",) and cfg.DATASETS.TEST == ("coco_2014_minival",)
    assert cfg.OUTPUT_DIR == "2020"


def test_command_line_wins(tmp_path: Path) -> None:
    cfg = _load(
        tmp_path,
        "SOLVER: {MAX_ITER: 5}",
        "SOLVER.MAX_ITER",
        "7",
        "SOLVER.STEPS",
        "(3, 4)",
        "MODEL.MASK_ON",
        "True",
    )
    assert cfg.SOLVER.MAX_ITER == 7 and cfg.SOLVER.STEPS == (3, 4) and cfg.MODEL.MASK_ON is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SOLVER: {BASE_LRR: 1}", "x.yaml: unknown key SOLVER.BASE_LRR; nearest known keys: SOLVER.BASE_LR"),
        ("BASE_LR: 1", "x.yaml: unknown key BASE_LR; nearest known keys: SOLVER.BASE_LR"),
        ("MODLE: {MASK_ON: True}", "unknown key MODLE; nearest known keys: MODEL"),
        ("LST: {SOLVER_STEP: {BASE_LRR: 1}}", "nearest known keys: LST.SOLVER_STEP.BASE_LR"),
        ("SEED: {A: 1}", "SEED must be a whole number, got {'A': 1}; example: SEED 0"),
        ("SEED: True", "SEED must be a whole number, got True"),
        ("SEED: 1.5", "SEED must be a whole number, got 1.5"),
        ("SOLVER: 3", "SOLVER is a section with keys of its own, but 3 was given"),
        (
            "SOLVER: {BASE_LR: fast}",
            "SOLVER.BASE_LR must be a number, got 'fast'; example: SOLVER.BASE_LR 0.001",
        ),
        ("SOLVER: {BASE_LR: True}", "SOLVER.BASE_LR must be a number, got True"),
        (
            "SOLVER: {STEPS: [a, b]}",
            "SOLVER.STEPS must be a list with a whole number at every position, got 'a'",
        ),
        ("MODEL: {MASK_ON: 1}", "MODEL.MASK_ON must be True or False, got 1"),
        ("MODEL: {WEIGHT: [a]}", "MODEL.WEIGHT must be text, got ['a']"),
        ("a: [1,", "x.yaml is not valid yaml in line 1"),
        ("- 1", "must hold keys and values, got a list"),
        ("SEED: 1\nSEED: 2", "the key SEED is given twice"),
        ("DATASETS: {REGISTER: {a: lvis}}", "DATASETS.REGISTER.a needs the keys KIND, ANN_FILE, IMG_DIR"),
        (
            "DATASETS: {REGISTER: {a: {KIN: lvis}}}",
            "unknown key DATASETS.REGISTER.a.KIN; nearest known keys: DATAS",
        ),
    ],
)
def test_errors_name_file_key_and_fix(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in _error(tmp_path, text)


def test_errors_of_the_command_line(tmp_path: Path) -> None:
    assert _error(tmp_path, "", "MODEL.WEIGTH", "a").startswith(
        "command line: unknown key MODEL.WEIGTH; nearest"
    )
    assert "MODEL.BACKBONE" in _error(tmp_path, "", "MODEL.BACKBON.CONV_BODY", "a")
    assert "write 'SOLVER.MAX_ITER 3'" in _error(tmp_path, "", "SOLVER.MAX_ITER=3")
    assert "known keys of the top level: MODEL" in _error(tmp_path, "", "qqq", "a")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothere\.yaml does not exist"):
        load_config(tmp_path / "nothere.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_base_files(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "a.yaml").write_text("SEED: 1\nSOLVER: {MAX_ITER: 1, IMS_PER_BATCH: 1}")
    (tmp_path / "base" / "b.yaml").write_text("_BASE_: a.yaml\nSEED: 2\nSOLVER: {MAX_ITER: 2}")
    cfg = _load(tmp_path, "_BASE_: [base/a.yaml, base/b.yaml]\nSEED: 3")
    assert (cfg.SEED, cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH) == (3, 2, 1)


def test_base_errors(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("_BASE_: x.yaml")
    assert "leads back to the file itself (x.yaml -> loop.yaml -> x.yaml)" in _error(
        tmp_path, "_BASE_: loop.yaml"
    )
    assert "gone.yaml does not exist" in _error(tmp_path, "_BASE_: gone.yaml")
    assert "must be a path or a list of paths" in _error(tmp_path, "_BASE_: [3]")
    (tmp_path / "bad.yaml").write_text("SEDE: 1")
    assert _error(tmp_path, "_BASE_: bad.yaml").startswith("bad.yaml: unknown key SEDE")


def test_sections_written_twice_are_joined(tmp_path: Path) -> None:
    cfg = _load(tmp_path, "MODEL:\n  RPN: {MIN_SIZE: 3}\n  MASK_ON: True\n  RPN: {NMS_THRESH: 0.6}\n")
    assert cfg.MODEL.RPN.MIN_SIZE == 3 and cfg.MODEL.RPN.NMS_THRESH == 0.6


def test_user_sections(tmp_path: Path) -> None:
    cfg = _load(
        tmp_path,
        """
LST:
  STEP_SIZE: [3, 4]
  SOLVER_STEP: {BASE_LR: 1, STEPS: 9, CLIP_GRADIENTS: {VALUE: 3}}
  PHASE_OVERRIDES: {3: [SOLVER.BASE_LR, 0.002]}
DATASETS: {REGISTER: {my.set: {KIND: lvis, ANN_FILE: a.json, IMG_DIR: b}}}
""",
        *("DATASETS.REGISTER.v1.x.KIND", "coco", "DATASETS.REGISTER.v1.x.ANN_FILE", "c.json"),
        *("DATASETS.REGISTER.v1.x.IMG_DIR", "d", "LST.PHASE_OVERRIDES.4", "['SEED', 3]"),
    )
    assert cfg.LST.STEP_SIZE == (3, 4)
    assert cfg.LST.SOLVER_STEP == {"BASE_LR": 1.0, "STEPS": (9,), "CLIP_GRADIENTS": {"VALUE": 3.0}}
    assert cfg.LST.PHASE_OVERRIDES == {"3": ["SOLVER.BASE_LR", 0.002], "4": ["SEED", 3]}
    assert set(cfg.DATASETS.REGISTER) == {"my.set", "v1.x"}
    save_config(cfg, tmp_path / "again.yaml")
    assert load_config(tmp_path / "again.yaml") == cfg


def test_clone_with_leaves_the_original_alone() -> None:
    cfg = load_config(None)
    changed = clone_with(
        cfg, ["SOLVER.STEPS", (1, 2), "MODEL.ROI_BOX_HEAD.NUM_CLASSES", 5, "OUTPUT_DIR", "a b"]
    )
    assert (changed.SOLVER.STEPS, changed.MODEL.ROI_BOX_HEAD.NUM_CLASSES) == ((1, 2), 5)
    assert changed.is_frozen() and cfg == get_cfg()
    with pytest.raises(ConfigError, match="SOLVER.IMS_PER_BATCH must be at least 1, got 0"):
        clone_with(cfg, ["SOLVER.IMS_PER_BATCH", 0])


PATH_TEXT = st.text(
    st.characters(categories=("L", "N"), include_characters=" ./-_:@#%&*!?|{}[],"), max_size=12
)


@given(
    lr=st.floats(0, 1e9),
    steps=st.lists(st.integers(0, 10**9), max_size=4, unique=True).map(sorted),
    names=st.lists(PATH_TEXT.filter(bool), max_size=3),
    folder=PATH_TEXT,
    seed=st.integers(-(2**62), 2**62),
)
def test_saved_tree_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, lr: float, steps: list, names: list, folder: str, seed: int
) -> None:
    cfg = clone_with(
        get_cfg(),
        [
            *("SOLVER.BASE_LR", lr, "SOLVER.STEPS", steps, "DATASETS.TRAIN", names),
            *("OUTPUT_DIR", folder, "SEED", seed),
        ],
    )
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(dump_config(cfg), encoding="utf-8")
    assert load_config(path) == cfg


def test_blank_values_keep_what_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.WARNING, logger="maskrcnn_benchmark"):
        monkeypatch.setattr(logging.getLogger("maskrcnn_benchmark"), "propagate", True)
        cfg = _load(tmp_path, "SOLVER:\n  STEPS:\n  MAX_ITER:\nTEST:\n")
    assert cfg == get_cfg()
    assert "SOLVER.STEPS has no value; it keeps the one it had" in caplog.text
