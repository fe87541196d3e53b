"""Input and output of the notebooks: the generated demo data, or the data of any LST configuration.

Environment variables choose them, so that no cell has to be edited:

* `MRB_CONFIG`: yaml of an LST run, whose node LST names annotations, images and phase sizes; the default
  is `configs/lst/demo.yaml` on the demo data.
* `MRB_OPTS`: KEY VALUE pairs that change it, as on the command line of the tools.
* `MRB_DEMO_DATA`: folder of the demo data (default `datasets/demo`), generated when it is missing.
* `MRB_OUTPUT`: folder of the files that notebooks write (default `runs/notebooks`).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from yacs.config import CfgNode

from maskrcnn_benchmark.config.load import clone_with, load_config
from maskrcnn_benchmark.data.datasets.demo.generate import generate_demo
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.files import path_argument

ROOT = Path(__file__).resolve().parents[3]
"""Folder of the checkout; relative paths in configurations start here."""
DEMO_CONFIG = ROOT / "configs" / "lst" / "demo.yaml"
_PATHS = ("ANN_TRAIN", "ANN_VAL", "IMG_TRAIN", "IMG_VAL", "SORTED_IDS")


def notebook_config(environment: Mapping[str, str]) -> CfgNode:
    """Load the configuration, with the paths of node LST resolved (see `resolve_path`).

    Raises:
        ConfigError: an unknown key or file, or a configuration without LST.ANN_TRAIN.
    """
    options = shlex.split(environment.get("MRB_OPTS", ""))
    if environment.get("MRB_CONFIG"):
        cfg = load_config(resolve_path(environment["MRB_CONFIG"]), options)
    else:
        demo = resolve_path(environment.get("MRB_DEMO_DATA", "datasets/demo"))
        if not demo.exists():
            generate_demo(demo)
        paths = {"ANN_TRAIN": "train.json", "ANN_VAL": "val.json", "IMG_TRAIN": "images/train"}
        paths["IMG_VAL"] = "images/val"
        data = [text for key, name in paths.items() for text in (f"LST.{key}", str(demo / name))]
        cfg = load_config(DEMO_CONFIG, [*data, *options])
    if not cfg.LST.ANN_TRAIN:
        raise ConfigError(
            "MRB_CONFIG: the configuration names no LST.ANN_TRAIN; give one of configs/lst, or the "
            "annotations by MRB_OPTS"
        )
    resolved = [(f"LST.{key}", str(resolve_path(cfg.LST[key]))) for key in _PATHS if cfg.LST[key]]
    return clone_with(cfg, [item for pair in resolved for item in pair])


def output_folder(environment: Mapping[str, str], name: str) -> Path:
    """Make and return folder `name` below MRB_OUTPUT for the files of a notebook."""
    folder = Path(environment.get("MRB_OUTPUT", ROOT / "runs" / "notebooks")) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def resolve_path(path: str | Path) -> Path:
    """Return `path`, expanded, if it exists, else the path below the folder of the checkout."""
    path = path_argument(str(path))
    return path if path.exists() else ROOT / path
