"""Keys that differ from their defaults, and where each value comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.keys import leaves
from maskrcnn_benchmark.config.load import config_layers
from maskrcnn_benchmark.config.merge import merge_pairs, merge_tree
from maskrcnn_benchmark.config.user_catalog import CATALOG_KEY, CATALOG_VARIABLE, chosen_catalog
from maskrcnn_benchmark.doctor.key_docs import meaning_of
from maskrcnn_benchmark.utils.files import StrPath

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Setting:
    """A key whose value is not the default.

    `default` is None for keys that have none (entries that a user adds); `source` is the file, of those
    that build on each other, or the command line, that gave the value.
    """

    key: str
    value: Any
    default: Any
    source: str
    meaning: str


def trace_settings(path: StrPath, overrides: Sequence[str]) -> tuple[list[Setting], list[str]]:
    """Return the settings in the order of the tree, and the lines on outdated keys in the files.

    Raises:
        ConfigError: a file or a setting cannot be used (see `load_config`).
    """
    cfg = get_cfg()
    defaults = dict(leaves(cfg))
    values, source_of, notes = dict(defaults), dict[str, str](), list[str]()

    def record(source: str) -> None:
        for key, value in leaves(cfg):
            if key not in values or values[key] != value:
                values[key], source_of[key] = value, source

    for layer in config_layers(path):
        merge_tree(cfg, layer.values, layer.source)
        record(layer.source)
        notes += [f"{layer.source}: {line}" for line in layer.notes]
    catalog = chosen_catalog(overrides)
    if catalog is not None:
        cfg[CATALOG_KEY] = catalog
        record(CATALOG_VARIABLE)
    merge_pairs(cfg, overrides, COMMAND_LINE)
    record(COMMAND_LINE)
    changed = [key for key, value in leaves(cfg) if key not in defaults or defaults[key] != value]
    return [Setting(k, values[k], defaults.get(k), source_of[k], meaning_of(k)) for k in changed], notes
