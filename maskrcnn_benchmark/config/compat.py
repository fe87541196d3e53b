"""What published yaml files hold that is written in another way here, so that they load unchanged.

Keys without effect (`MODEL.ROI_HEADS.USE_FPN`, `AMP_VERBOSE` ...) are ordinary keys of the tree. Here are
keys that moved, and values that the step files of the LST release leave blank, to be filled in by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Where a key was, and where it is now.
MOVED = {("MODEL", "BACKBONE", "OUT_CHANNELS"): ("MODEL", "RESNETS", "BACKBONE_OUT_CHANNELS")}


def modernise(tree: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Bring the content of a yaml file into today's form.

    A key without a value is left out and so keeps what it had before.

    Returns:
        The new tree, and lines for the log about what was changed or has no effect.
    """
    result, blank = _drop_blank(tree)
    notes = [f"{key} has no value; it keeps the one it had" for key in blank]
    for old, new in MOVED.items():
        value = _find(result, old)
        if value is not None:
            _section(result, old).pop(old[-1])
            _section(result, new).setdefault(new[-1], value)
            notes.append(f"{'.'.join(old)} is now {'.'.join(new)}")
    return result, notes


def _drop_blank(tree: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Any], list[str]]:
    """The tree without keys that have no value, and the full names of these."""
    kept: dict[str, Any] = {}
    blank: list[str] = []
    for name, value in tree.items():
        if value is None:
            blank.append(f"{prefix}{name}")
        elif isinstance(value, Mapping):
            kept[name], inner = _drop_blank(value, f"{prefix}{name}.")
            blank += inner
        else:
            kept[name] = value
    return kept, blank


def _find(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Value at a path; None when there is none."""
    node: Any = tree
    for part in path:
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node


def _section(tree: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """The section that holds the last part of a path; made if it is not there."""
    node = tree
    for part in path[:-1]:
        node = node.setdefault(part, {})
    return node
