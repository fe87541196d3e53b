"""Merge values into the config tree: which keys exist, and which value fits which key.

The rules are those of yacs with these additions: an int stands for a float, a single value for a sequence of
one, and every error is one line that names the source, the full key and a way out.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.config.defaults import ALTERNATIVE_TYPES, ENTRIES, TEMPLATES, get_cfg
from maskrcnn_benchmark.config.keys import get_value, leaves, nearest_keys, sections
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.text import shortened, shortened_text

# Longer text is no literal: reading it takes time.
_MAX_KEY = 200
_MAX_LITERAL = 1 << 16
_INTEGERS = range(-(1 << 63), 1 << 64)
_NAMES = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


def merge_tree(cfg: CfgNode, values: Mapping[str, Any], source: str) -> None:
    """Merge nested `values` (as read from yaml) into `cfg` in place; `source` names them in errors.

    Raises:
        ConfigError: unknown key, or a value of the wrong type.
    """
    _Merger(source).merge(cfg, values)


def merge_pairs(cfg: CfgNode, pairs: Sequence[Any], source: str) -> None:
    """Merge KEY VALUE KEY VALUE ... into `cfg` in place; text values follow the rules of yaml files."""
    if len(pairs) % 2:
        hint = next((f"; write {shortened(p.replace('=', ' ', 1))}" for p in pairs if "=" in str(p)), "")
        raise ConfigError(
            f"{source}: settings come as KEY VALUE pairs, but {len(pairs)} words were given{hint}"
        )
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        nested: Any = value
        for part in reversed(_split(str(key))):
            nested = {part: nested}
        merge_tree(cfg, nested, source)


def decode(value: Any) -> Any:
    """Return the value of text that is a Python literal ("(1, 2)", "1e-4", "True"), and the rest as it is."""
    if not isinstance(value, str) or len(value) > _MAX_LITERAL:
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def _split(key: str) -> list[str]:
    """Split a full key; names of entries (DATASETS.REGISTER.<name>.KIND) may hold dots themselves."""
    for node in ENTRIES:
        if key.startswith(node + "."):
            name, _, leaf = key[len(node) + 1 :].rpartition(".")
            return [*node.split("."), *([name, leaf] if name else [leaf])]
    return key.split(".")


def _is_plain(value: Any) -> bool:
    """Whether yaml can write a value and read it back."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(v) for key, v in value.items())
    return value is None or type(value) in (bool, int, float, str)


class _Merger:
    """One merge, with its source for messages and the tree of defaults for types."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._defaults = get_cfg()

    def merge(self, cfg: CfgNode, values: Mapping[str, Any]) -> None:
        self._merge_node(cfg, self._defaults, values, "")

    def _error(self, text: str) -> ConfigError:
        return ConfigError(f"{self._source}: {text}")

    def _merge_node(self, node: CfgNode, schema: CfgNode, values: Mapping[str, Any], prefix: str) -> None:
        for name, value in values.items():
            name = str(name)
            key = prefix + name
            if name not in schema:
                raise self._error(self._unknown(key, schema, prefix))
            default = schema[name]
            if not isinstance(default, CfgNode):
                node[name] = self._leaf(value, default, key)
                continue
            section = decode(value)
            if not isinstance(section, Mapping):
                raise self._error(
                    f"{key} is a section with keys of its own, but {shortened(value)} was given for it"
                )
            if name not in node:
                node[name] = CfgNode()
            self._merge_section(node[name], default, section, key)

    def _merge_section(self, node: CfgNode, schema: CfgNode, section: Mapping[str, Any], key: str) -> None:
        if key in TEMPLATES:
            self._merge_node(node, get_value(self._defaults, TEMPLATES[key]), section, f"{key}.")
        elif key in ENTRIES:
            for name, entry in section.items():
                if not isinstance(entry, Mapping):
                    expected = ", ".join(name for name, default in ENTRIES[key].items() if default == "")
                    raise self._error(
                        f"{key}.{name} needs the keys {expected}, but {shortened(entry)} was given"
                    )
                target = node.setdefault(str(name), CfgNode())
                self._merge_node(target, CfgNode(dict(ENTRIES[key])), entry, f"{key}.{name}.")
        elif schema.is_new_allowed():
            for name, value in section.items():
                plain = decode(value)
                if not _is_plain(plain):
                    raise self._error(
                        f"{key}.{name} must hold numbers, text, True, False or lists of them, got "
                        f"{shortened(value)}"
                    )
                node[str(name)] = list(plain) if isinstance(plain, (list, tuple)) else plain
        else:
            self._merge_node(node, schema, section, f"{key}.")

    def _unknown(self, key: str, schema: CfgNode, prefix: str) -> str:
        if len(key) > _MAX_KEY:
            return f"unknown key {shortened_text(key)}"
        known = [*sections(self._defaults), *(k for k, _ in leaves(self._defaults))]
        known += [prefix + k for k, _ in leaves(schema)]
        near = nearest_keys(key, sorted(set(known)))
        if near:
            return f"unknown key {key}; nearest known keys: {', '.join(near)}"
        return (
            f"unknown key {key}; known keys of {prefix.rstrip('.') or 'the top level'}: {', '.join(schema)}"
        )

    def _leaf(self, value: Any, default: Any, key: str) -> Any:
        allowed = ALTERNATIVE_TYPES.get(key, (type(default),))
        if isinstance(default, str):
            plain = decode(value)
            # Only quotes are taken off text: a file name such as 2020 stays text.
            result = plain if isinstance(plain, str) else value
            if isinstance(result, str):
                return result
        plain = decode(value)
        for kind in allowed:
            if kind in (tuple, list):
                if isinstance(plain, (tuple, list)):
                    return kind(self._elements(plain, default, key))
                if len(allowed) == 1 and isinstance(plain, (int, float, str)) and not isinstance(plain, bool):
                    return kind(self._elements([plain], default, key))
            elif kind is float and isinstance(plain, int) and not isinstance(plain, bool):
                return self._float(plain, key)
            elif type(plain) is kind:
                return self._integer(plain, key) if isinstance(plain, int) and kind is int else plain
        expected = " or ".join(_NAMES.get(kind, "a list") for kind in allowed)
        example = f"{list(default)}" if isinstance(default, tuple) else f"{default!r}"
        raise self._error(f"{key} must be {expected}, got {shortened(value)}; example: {key} {example}")

    def _float(self, value: float, key: str) -> float:
        try:
            return float(value)
        except OverflowError:
            raise self._error(f"{key} must be a number, got {shortened(value)}, which is too large") from None

    def _integer(self, value: int, key: str) -> int:
        if value not in _INTEGERS:
            raise self._error(
                f"{key} must be a whole number of 64 bits, got {shortened(value)}, which is too large"
            )
        return value

    def _elements(self, values: Sequence[Any], default: Any, key: str) -> list[Any]:
        """Return the elements of a list; those of a numeric list must be numeric, floats like the default."""
        kinds = {type(v) for v in default} if isinstance(default, (tuple, list)) else {type(default)}
        if len(kinds) != 1:
            return list(values)
        kind = kinds.pop()
        result: list[Any] = []
        for value in values:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if (kind in (int, float) and not number) or (kind is bool and not isinstance(value, bool)):
                raise self._error(
                    f"{key} must be a list with {_NAMES[kind]} at every position, got {shortened(value)}"
                )
            if isinstance(value, int) and kind in (int, float):
                value = self._float(value, key) if kind is float else self._integer(value, key)
            result.append(float(value) if kind is float else value)
        return result
