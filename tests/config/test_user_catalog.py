"""PATHS_CATALOG is code that is run: it counts only from the command line and the environment."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from maskrcnn_benchmark.config.catalog import resolve_dataset
from maskrcnn_benchmark.config.load import clone_with, load_config, save_config
from maskrcnn_benchmark.utils.errors import ConfigError

CODE = """
from pathlib import Path
Path(__file__).with_suffix(".ran").touch()
class DatasetCatalog:
    @staticmethod
    def get(name):
        return {"factory": "COCODataset", "args": {"root": "images", "ann_file": "a.json"}}
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """A catalog that leaves a file when it is run."""
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def yaml_with(catalog: Path, text: str = "PATHS_CATALOG: {}") -> Path:
    """A config file that names the catalog."""
    path = catalog.with_suffix(".yaml")
    path.write_text(text.format(catalog))
    return path


def test_a_yaml_file_cannot_name_it(catalog: Path) -> None:
    path = yaml_with(catalog)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    message = str(error.value)
    assert message.startswith(f"{path}: PATHS_CATALOG") and f"PATHS_CATALOG {catalog}" in message
    assert "MRB_PATHS_CATALOG" in message and not catalog.with_suffix(".ran").exists()


def test_neither_can_its_base_nor_the_settings_of_a_phase(catalog: Path) -> None:
    yaml_with(catalog)
    child = catalog.with_name("child.yaml")
    child.write_text(f"_BASE_: {catalog.stem}.yaml")
    with pytest.raises(ConfigError, match="PATHS_CATALOG"):
        load_config(child)
    override = yaml_with(catalog, "LST: {{PHASE_OVERRIDES: {{1: [PATHS_CATALOG, {}]}}}}")
    with pytest.raises(ConfigError, match="LST.PHASE_OVERRIDES.1: PATHS_CATALOG"):
        load_config(override)
    with pytest.raises(ConfigError, match="PATHS_CATALOG"):
        clone_with(load_config(None), ["PATHS_CATALOG", str(catalog)])


def test_the_command_line_names_it(catalog: Path) -> None:
    for path in (None, yaml_with(catalog, "PATHS_CATALOG: other.py")):
        cfg = load_config(path, ["PATHS_CATALOG", str(catalog)])
        assert str(catalog) == cfg.PATHS_CATALOG
        assert resolve_dataset(cfg, "x").ann_file == "a.json"
        assert str(catalog) == clone_with(cfg, ["SEED", 3]).PATHS_CATALOG
    assert load_config(yaml_with(catalog), ["PATHS_CATALOG", ""]).PATHS_CATALOG == ""


def test_the_environment_names_it(catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MRB_PATHS_CATALOG", str(catalog))
    assert str(catalog) == load_config(None).PATHS_CATALOG
    assert str(catalog) == load_config(yaml_with(catalog, "PATHS_CATALOG: other.py")).PATHS_CATALOG
    assert load_config(None, ["PATHS_CATALOG", "third.py"]).PATHS_CATALOG == "third.py"


def test_a_stored_config_can_be_compared_and_given_again(catalog: Path) -> None:
    """config.yml of a run whose command line named it: read for comparison; used with the same words."""
    cfg = load_config(None, ["PATHS_CATALOG", str(catalog)])
    stored = catalog.with_name("config.yml")
    save_config(cfg, stored)
    assert load_config(stored, for_comparison=True) == cfg
    assert load_config(stored, ["PATHS_CATALOG", str(catalog)]) == cfg
    with pytest.raises(ConfigError, match="PATHS_CATALOG"):
        load_config(stored)


@pytest.mark.parametrize(
    "value", ['""', "/data/maskrcnn-benchmark/maskrcnn_benchmark/config/paths_catalog.py"]
)
def test_published_files_load(
    tmp_path: Path, value: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.yaml").write_text(f"PATHS_CATALOG: {value}")
    monkeypatch.setattr(logging.getLogger("maskrcnn_benchmark"), "propagate", True)
    with caplog.at_level(logging.WARNING, logger="maskrcnn_benchmark"):
        assert load_config(tmp_path / "x.yaml").PATHS_CATALOG == ""
    assert ("whose names are packaged" in caplog.text) == (value != '""')
