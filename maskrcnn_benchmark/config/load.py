"""Load config files into one frozen and checked tree, and write it back."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from maskrcnn_benchmark.config.checks.general import check_config
from maskrcnn_benchmark.config.compat import modernise
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.keys import leaves
from maskrcnn_benchmark.config.merge import merge_pairs, merge_tree
from maskrcnn_benchmark.config.paths import expand_config_paths
from maskrcnn_benchmark.config.user_catalog import CATALOG_KEY, check_catalog_source, chosen_catalog
from maskrcnn_benchmark.config.yaml_text import YamlReader, parse_yaml
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.files import StrPath, expand_path, write_text
from maskrcnn_benchmark.utils.text import shortened, shortened_text

BASE_KEY = "_BASE_"
MAX_FILES = 100
"""Most files of one configuration."""
_LONGEST = 1000  # characters of a message about values that do not go together
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConfigLayer:
    """Content of one file: its `source` for messages, nested `values`, and `notes` on outdated keys."""

    source: str
    values: dict[str, Any]
    notes: tuple[str, ...]


def load_config(
    path: StrPath | None, overrides: Sequence[str] = (), *, for_comparison: bool = False
) -> CfgNode:
    """Load the defaults, changed by a yaml file and then by KEY VALUE pairs; check and freeze them.

    A file may name others that it builds on: `_BASE_: ../base/fpn.yaml`, or a list of which later ones
    win; paths are relative to the file that names them. PATHS_CATALOG, a Python file that is run, comes
    from `overrides` or the environment variable MRB_PATHS_CATALOG only.

    Args:
        for_comparison: the settings are read, not used: PATHS_CATALOG may come from the file.

    Raises:
        ConfigError: a file is missing or no yaml, a key is unknown, a value does not fit.
    """
    cfg = get_cfg()
    catalog = chosen_catalog(overrides)
    for layer in config_layers(path) if path is not None else ():
        for line in layer.notes:
            _logger.warning("%s: %s", layer.source, line)
        if not for_comparison and catalog is None:
            check_catalog_source(layer.values, layer.source)
        merge_tree(cfg, layer.values, layer.source)
    if catalog is not None:
        cfg[CATALOG_KEY] = catalog
    merge_pairs(cfg, overrides, "command line")
    source = "command line" if path is None else os.fspath(path)
    _check(cfg, source)
    cfg.freeze()
    return cfg


def config_layers(path: StrPath) -> list[ConfigLayer]:
    """Return what a yaml file and the files that it builds on set, in the order in which they are merged.

    A file that several others build on is read once. It counts where it is named last, which gives the same
    values as merging it each time.

    Raises:
        ConfigError: a file is missing or no yaml, or builds on itself; there are too many.
    """
    layers = _Layers()
    layers.add(Path(expand_path(os.fspath(path))), ())
    return layers.last_first[::-1]


def clone_with(cfg: CfgNode, overrides: Sequence[Any]) -> CfgNode:
    """Return a frozen, checked copy of `cfg` with KEY VALUE pairs changed; values may be text or typed.

    PATHS_CATALOG stays: pairs may come from a file (LST.PHASE_OVERRIDES).
    """
    copy = cfg.clone()
    copy.defrost()
    merge_pairs(copy, overrides, "derived configuration")
    if copy[CATALOG_KEY] != cfg[CATALOG_KEY]:
        check_catalog_source(copy, "derived configuration")
    _check(copy, "derived configuration")
    copy.freeze()
    return copy


def save_config(cfg: CfgNode, path: StrPath) -> None:
    """Write the whole tree as yaml that `load_config` reads back to an equal one."""
    write_text(path, dump_config(cfg))


def dump_config(cfg: CfgNode) -> str:
    """Return the whole tree as yaml text, in the order of the defaults."""
    return yaml.safe_dump(_plain(cfg), sort_keys=False, default_flow_style=None, width=110)


def changed_keys(before: str, now: str) -> list[str]:
    """Compare two texts of `dump_config`: "KEY was OLD, now NEW" per changed key, without OUTPUT_DIR.

    A key that `before`, written by an earlier version, does not have counts as its default.

    Raises:
        ConfigError: `before`, which comes from a file, is no yaml text.
    """
    defaults = dict(leaves(CfgNode(_plain(get_cfg()))))
    stored = parse_yaml(before, "the configuration stored with the weights")
    old, new = (dict(leaves(CfgNode(tree))) for tree in (stored, yaml.safe_load(now)))
    changed = []
    for key in dict.fromkeys([*old, *new]):
        was, value = old.get(key, defaults.get(key)), new.get(key)
        if key != "OUTPUT_DIR" and was != value:
            changed.append(f"{key} was {_shown(was)}, now {_shown(value)}")
    return changed


def _shown(value: Any) -> str:
    """Return a value for a message: quotes only for text that would not be seen."""
    return shortened_text(value) if isinstance(value, str) and value else shortened(value)


def _check(cfg: CfgNode, source: str) -> None:
    try:
        expand_config_paths(cfg)
        check_config(cfg)
    except ConfigError as error:
        raise ConfigError(f"{source}: {shortened_text(str(error), _LONGEST)}") from None


def _plain(value: Any) -> Any:
    """Return nodes as dicts and tuples as lists, which is what yaml knows."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


class _Layers:
    """Collects the files of a configuration, each once, the ones that win first."""

    def __init__(self) -> None:
        self.last_first: list[ConfigLayer] = []
        self._reader = YamlReader()
        self._known: set[str] = set()

    def add(self, path: Path, parents: tuple[str, ...]) -> None:
        """Add a file, then the files that it builds on, from the last to the first."""
        try:
            real = os.path.realpath(path)
        except ValueError as error:  # a null character
            raise ConfigError(f"configuration file {shortened(str(path))} cannot be read: {error}") from None
        if real in parents:
            chain = " -> ".join(os.path.basename(p) for p in (*parents, real)[-8:])
            raise ConfigError(f"{path}: {BASE_KEY} leads back to the file itself ({chain})")
        name = os.path.abspath(path)
        if name in self._known:
            return
        self._known.add(name)
        if len(self._known) > MAX_FILES:
            raise ConfigError(f"{path}: the configuration builds on more than {MAX_FILES} files")
        tree = self._reader.read(path)
        bases = tree.pop(BASE_KEY, [])
        values, notes = modernise(tree)
        self.last_first.append(ConfigLayer(os.fspath(path), values, tuple(notes)))
        for base in reversed(bases if isinstance(bases, list) else [bases]):
            if not isinstance(base, str):
                raise ConfigError(
                    f"{path}: {BASE_KEY} must be a path or a list of paths, got {shortened(base)}"
                )
            self.add(Path(os.path.normpath(path.parent / expand_path(base))), (*parents, real))
