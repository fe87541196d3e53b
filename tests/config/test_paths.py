"""`~` and variables in paths of the config, of data sets and of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maskrcnn_benchmark.config.catalog import DatasetSpec, resolve_dataset, resolve_weight
from maskrcnn_benchmark.config.keys import get_value
from maskrcnn_benchmark.config.load import clone_with, load_config, save_config
from maskrcnn_benchmark.config.paths import PATH_KEYS
from maskrcnn_benchmark.utils.errors import ConfigError, UsageError
from maskrcnn_benchmark.utils.files import expand_path, path_argument


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Home folder and $DATA of the test; the working directory is another one."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.delenv("NOT_SET", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def test_every_path_of_the_config_is_expanded(home: Path) -> None:
    pairs = [word for key in PATH_KEYS if key != "PATHS_CATALOG" for word in (key, "~/a/$DATA/b${DATA}.json")]
    cfg = load_config(None, pairs)
    for key in pairs[::2]:
        assert get_value(cfg, key) == f"{home}/a//data/b/data.json", key
    assert clone_with(cfg, ["OUTPUT_DIR", "$DATA/x"]).OUTPUT_DIR == "/data/x"


def test_stored_configs_hold_paths_that_work(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's file is read back to the same tree, also where the variables are others."""
    cfg = load_config(None, ["OUTPUT_DIR", "~/runs", "MODEL.WEIGHT", "$DATA/w.pth"])
    save_config(cfg, "config.yml")
    monkeypatch.setenv("HOME", "/elsewhere")
    monkeypatch.setenv("DATA", "/other")
    assert load_config("config.yml") == cfg and f"{home}/runs" == cfg.OUTPUT_DIR


def test_config_files(home: Path) -> None:
    home.mkdir()
    (home / "base.yaml").write_text("SEED: 3\n")
    (home / "own.yaml").write_text("_BASE_: ~/base.yaml\nOUTPUT_DIR: ~/runs\n")
    cfg = load_config("~/own.yaml")
    assert cfg.SEED == 3 and f"{home}/runs" == cfg.OUTPUT_DIR


def test_data_sets(home: Path) -> None:
    entry = {"KIND": "coco", "ANN_FILE": "$DATA/a.json", "IMG_DIR": "~/images.zip/train"}
    cfg = load_config(None, ["DATASETS.REGISTER", str({"mine": entry})])
    assert resolve_dataset(cfg, "mine") == DatasetSpec(
        "mine", "coco", "/data/a.json", f"{home}/images.zip/train"
    )
    spec = resolve_dataset(cfg, "lvis:~/b.json@$DATA/images")
    assert spec == DatasetSpec("b", "lvis", f"{home}/b.json", "/data/images")
    assert resolve_dataset(cfg, "coco:a.json@s3://$DATA/x").img_dir == "s3:///data/x"
    with pytest.raises(ConfigError, match=r"data set 'lvis:\$NOT_SET/b.json@c': .*NOT_SET is not set"):
        resolve_dataset(cfg, "lvis:$NOT_SET/b.json@c")


def test_weights(home: Path) -> None:
    cfg = load_config(None)
    assert resolve_weight(cfg, "~/w.pth") == f"{home}/w.pth"
    assert resolve_weight(cfg, "https://x.org/~user/w.pth") == "https://x.org/~user/w.pth"


@pytest.mark.parametrize("value", ["$NOT_SET/runs", "~nobody-of-that-name/runs", "runs/${NOT_SET}"])
def test_what_stands_for_nothing_is_an_error(value: str) -> None:
    with pytest.raises(ConfigError, match=r"command line: OUTPUT_DIR: path .*(not set|no user)"):
        load_config(None, ["OUTPUT_DIR", value])
    with pytest.raises(UsageError):
        path_argument(value)


@pytest.mark.parametrize("value", ["", ".", "a~b", "a/~/b", "https://x.org/a?b=~c", "r\u00fcns"])
def test_other_paths_stay(value: str) -> None:
    assert expand_path(value) == value


def test_files_of_such_names_stay(home: Path) -> None:
    """A dollar sign is allowed in the name of a file that exists; a tilde of a known user is not kept."""
    Path("a$NOT_SET.json").touch()
    Path("~").mkdir()
    assert expand_path("a$NOT_SET.json") == "a$NOT_SET.json"
    assert expand_path("~/runs") == f"{home}/runs"


def test_tools_expand_their_files(home: Path, monkeypatch: Any) -> None:
    assert path_argument("~/x.json") == home / "x.json"
