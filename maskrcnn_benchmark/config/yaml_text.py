"""Read yaml so that nothing of a config file is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from maskrcnn_benchmark.utils.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Join a section that is written twice, as in some published files; plain yaml drops the first one."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    loader.flatten_mapping(node)
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(loader.construct_object(key_node, deep=True))
        value = loader.construct_object(value_node, deep=True)
        if key in result and not (isinstance(value, dict) and isinstance(result[key], dict)):
            raise yaml.constructor.ConstructorError(
                problem=f"the key {key} is given twice", problem_mark=key_node.start_mark
            )
        result[key] = _join(result[key], value) if key in result else value
    return result


def _join(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Join two dicts; of a value in both the second counts."""
    result = dict(first)
    for key, value in second.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _join(result[key], value) if both else value
    return result


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return keys and values of a yaml file; an empty file gives an empty dict, every key is text.

    Raises:
        ConfigError: the file is missing, unreadable, no yaml, no mapping, or gives a value twice.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise ConfigError(f"configuration file {path} is not valid yaml{where}: {problem}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"configuration file {path} must hold keys and values, got a {type(tree).__name__}")
    return tree
