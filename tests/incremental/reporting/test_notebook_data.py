"""Environment variables choose the data of the notebooks."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskrcnn_benchmark.incremental.reporting.notebook_data import (
    ROOT,
    notebook_config,
    output_folder,
    resolve_path,
)
from maskrcnn_benchmark.utils.errors import ConfigError


def test_demo_data_by_default(demo_data: Path) -> None:
    cfg = notebook_config(
        {"MRB_DEMO_DATA": str(demo_data), "MRB_OPTS": "LST.BASE_SIZE 20 LST.STEP_SIZE '[3, 1]'"}
    )
    assert Path(cfg.LST.ANN_TRAIN) == demo_data / "train.json" and Path(cfg.LST.IMG_VAL).is_dir()
    assert cfg.LST.BASE_SIZE == 20 and list(cfg.LST.STEP_SIZE) == [3, 1]


def test_demo_data_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []
    monkeypatch.setattr("maskrcnn_benchmark.incremental.reporting.notebook_data.generate_demo", calls.append)
    notebook_config({"MRB_DEMO_DATA": str(tmp_path)})
    assert not calls
    notebook_config({"MRB_DEMO_DATA": str(tmp_path / "new")})
    assert calls == [tmp_path / "new"]


def test_a_configuration_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text("{}")
    environment = {"MRB_CONFIG": "configs/lst/lvis_v0.5_270_6x160.yaml", "MRB_OPTS": "LST.ANN_VAL mine.json"}
    cfg = notebook_config(environment)
    assert Path(cfg.LST.ANN_TRAIN) == ROOT / "datasets/lvis/annotations/lvis_v0.5_train.json"
    assert cfg.LST.ANN_VAL == "mine.json" and cfg.LST.BASE_SIZE == 270


def test_a_configuration_without_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="LST.ANN_TRAIN"):
        notebook_config({"MRB_CONFIG": "configs/e2e_mask_rcnn_R_50_FPN_1x.yaml"})


def test_paths(tmp_path: Path) -> None:
    assert output_folder({"MRB_OUTPUT": str(tmp_path)}, "split") == tmp_path / "split"
    assert (tmp_path / "split").is_dir()
    assert (
        resolve_path(tmp_path / "absent") == tmp_path / "absent"
        and resolve_path("configs/lst/demo.yaml").is_file()
    )
