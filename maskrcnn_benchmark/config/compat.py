"""What published yaml files hold that means nothing here, so that they load unchanged.

Keys without effect (``MODEL.ROI_HEADS.USE_FPN``, ``AMP_VERBOSE`` ...) are ordinary keys of the tree.
The step files of the LST release leave some values blank, to be filled in by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Keys of published files that ask for something which is done in another way here.
REPLACED = {
    "MODEL.GENERATE_DISTILL": "stored logits are made by the stage 'dump' of LST.ENABLED runs",
    "SOLVER.USE_CAS": "classes are balanced by LST.REPLAY",
}


def drop_blank(tree: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Any], list[str]]:
    """Leave out keys without a value, which so keep what they had before.

    Returns:
        The tree without blank values, and the full keys of those that were left out.
    """
    kept: dict[str, Any] = {}
    blank: list[str] = []
    for name, value in tree.items():
        if value is None:
            blank.append(f"{prefix}{name}")
        elif isinstance(value, Mapping):
            kept[name], inner = drop_blank(value, f"{prefix}{name}.")
            blank += inner
        else:
            kept[name] = value
    return kept, blank


def notes(tree: Mapping[str, Any], blank: list[str]) -> list[str]:
    """Lines for the log about what a file holds and this project treats in its own way."""
    lines = [f"{key} has no value; it keeps the one it had" for key in blank]
    for key, instead in REPLACED.items():
        section, _, name = key.partition(".")
        inner = tree.get(section)
        if isinstance(inner, Mapping) and inner.get(name) is True:
            lines.append(f"{key} has no effect: {instead}")
    return lines
