"""Build configurations from the settings of reference files; know what the code base cannot build yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from checks.files import CONFIGS, GOLDEN
from checks.published import settings_from_name
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.load import clone_with, load_config
from maskrcnn_benchmark.utils.files import read_json

# What a configuration may ask for that does not exist yet.
UNSUPPORTED: tuple[tuple[str, Callable[[Mapping[str, Any]], bool]], ...] = (
    ("FBNet", lambda diff: "FBNet" in str(diff.get("MODEL.BACKBONE.CONV_BODY", ""))),
)
# The same told from the name of a published configuration file, for references that give no settings.
UNSUPPORTED_FILES = {
    "fbnet": "FBNet",
}


def unsupported_settings(diff: Mapping[str, Any]) -> str:
    """Names of the missing parts that `config_diff_from_defaults` needs, or ""."""
    return ", ".join(name for name, needed in UNSUPPORTED if needed(diff))


def unsupported_file(config: str) -> str:
    """Names of the missing parts that a published configuration file needs, or ""."""
    return ", ".join(
        dict.fromkeys(name for word, name in UNSUPPORTED_FILES.items() if word in config.lower())
    )


def config_from_diff(diff: Mapping[str, Any]) -> CfgNode:
    """The defaults changed by dotted keys with typed values. Raises ConfigError naming a key that does not
    fit.
    """
    pairs: list[Any] = []
    for key, setting in diff.items():
        pairs += [key, tuple(setting) if isinstance(setting, list) else setting]
    return clone_with(get_cfg(), pairs)


def published_config(config: str, folder: Path) -> CfgNode | None:
    """The configuration that a published path `configs/...yaml` stands for, without command-line overrides.

    Taken from this project's file of that path, else from the settings of a model reference in `folder` (or
    among this project's) that was made with the same file and no override, else from the name; None when
    nothing tells.
    """
    path = CONFIGS.parent / config
    if path.is_file():
        return load_config(path)
    for file in [*sorted(folder.glob("*.json")), *sorted((GOLDEN / "core").glob("*.json"))]:
        info = read_json(file, what="reference file")
        if isinstance(info, dict) and info.get("config") == config and info.get("overrides") == []:
            return config_from_diff(info["config_diff_from_defaults"])
    settings = settings_from_name(config)
    return None if settings is None else config_from_diff(settings)
