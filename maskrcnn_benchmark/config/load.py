"""Load config files into one frozen and checked tree, and write it back."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
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
from maskrcnn_benchmark.config.yaml_text import read_yaml
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.files import StrPath, expand_path, write_text

BASE_KEY = "_BASE_"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConfigLayer:
    """Content of one file: its `source` for messages, nested `values`, and `notes` on outdated keys."""

    source: str
    values: dict[str, Any]
    notes: tuple[str, ...]


def load_config(path: StrPath | None, overrides: Sequence[str] = ()) -> CfgNode:
    """Load the defaults, changed by a yaml file and then by KEY VALUE pairs; check and freeze them.

    A file may name others that it builds on: `_BASE_: ../base/fpn.yaml`, or a list of which later ones
    win; paths are relative to the file that names them.

    Raises:
        ConfigError: a file is missing or no yaml, a key is unknown, a value does not fit.
    """
    cfg = get_cfg()
    for layer in config_layers(path) if path is not None else ():
        for line in layer.notes:
            _logger.warning("%s: %s", layer.source, line)
        merge_tree(cfg, layer.values, layer.source)
    merge_pairs(cfg, overrides, "command line")
    source = "command line" if path is None else os.fspath(path)
    _check(cfg, source)
    cfg.freeze()
    return cfg


def config_layers(path: StrPath) -> Iterator[ConfigLayer]:
    """Yield what a yaml file and the files that it builds on set, in the order in which they are merged.

    Raises:
        ConfigError: a file is missing or no yaml, or builds on itself.
    """
    return _layers(Path(expand_path(os.fspath(path))), ())


def clone_with(cfg: CfgNode, overrides: Sequence[Any]) -> CfgNode:
    """Return a frozen, checked copy of `cfg` with KEY VALUE pairs changed; values may be text or typed."""
    copy = cfg.clone()
    copy.defrost()
    merge_pairs(copy, overrides, "derived configuration")
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
    """
    defaults = dict(leaves(CfgNode(_plain(get_cfg()))))
    old, new = (dict(leaves(CfgNode(yaml.safe_load(text) or {}))) for text in (before, now))
    changed = []
    for key in dict.fromkeys([*old, *new]):
        was, value = old.get(key, defaults.get(key)), new.get(key)
        if key != "OUTPUT_DIR" and was != value:
            changed.append(f"{key} was {_shown(was)}, now {_shown(value)}")
    return changed


def _shown(value: Any) -> Any:
    """Return a value for a message: quotes for text that would not be seen."""
    return value if value != "" else "''"


def _check(cfg: CfgNode, source: str) -> None:
    try:
        expand_config_paths(cfg)
        check_config(cfg)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def _plain(value: Any) -> Any:
    """Return nodes as dicts and tuples as lists, which is what yaml knows."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


def _layers(path: Path, parents: tuple[Path, ...]) -> Iterator[ConfigLayer]:
    """Yield the files that `path` builds on, then its values."""
    real = path.resolve()
    if real in parents:
        chain = " -> ".join(p.name for p in (*parents, real))
        raise ConfigError(f"{path}: {BASE_KEY} leads back to the file itself ({chain})")
    tree = read_yaml(path)
    bases = tree.pop(BASE_KEY, [])
    for base in [bases] if isinstance(bases, str) else bases:
        if not isinstance(base, str):
            raise ConfigError(f"{path}: {BASE_KEY} must be a path or a list of paths, got {bases!r}")
        yield from _layers(Path(os.path.normpath(path.parent / expand_path(base))), (*parents, real))
    values, notes = modernise(tree)
    yield ConfigLayer(os.fspath(path), values, tuple(notes))
