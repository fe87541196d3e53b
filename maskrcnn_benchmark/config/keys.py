"""Names of config keys: list them, and search those that a wrong one resembles."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from yacs.config import CfgNode


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield full key and value of every leaf, e.g. ("SOLVER.BASE_LR", 0.001), in the tree's order."""
    for key, value in node.items():
        if isinstance(value, CfgNode) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def sections(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the full key of every section, e.g. "MODEL.RPN", in the tree's order."""
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield prefix + key
            yield from sections(value, f"{prefix}{key}.")


def get_value(cfg: CfgNode, key: str) -> Any:
    """Return the value or node of a full key; an unknown key raises `KeyError`."""
    node: Any = cfg
    for part in key.split("."):
        node = node[part]
    return node


def _similarity(key: str, known: str) -> float:
    """Return a similarity from 0 to 1; a right last component in the wrong section counts nearly fully."""
    whole = difflib.SequenceMatcher(None, key.upper(), known.upper()).ratio()
    last, known_last = key.rpartition(".")[2], known.rpartition(".")[2]
    tail = difflib.SequenceMatcher(None, last.upper(), known_last.upper()).ratio()
    return max(whole, 0.97 * tail + 0.03 * whole) if tail > 0.9 else whole


def nearest_keys(key: str, known: list[str], count: int = 3) -> list[str]:
    """Return up to `count` known keys that resemble `key`, best first, without those far behind the best."""
    scored = sorted(((_similarity(key, k), k) for k in known), key=lambda pair: (-pair[0], pair[1]))
    if not scored or scored[0][0] < 0.6:
        return []
    return [k for score, k in scored[:count] if score >= max(0.6, scored[0][0] - 0.1)]
