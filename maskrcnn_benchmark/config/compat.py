"""What published yaml files hold that is written in another way here, so that they load unchanged.

* Keys without effect (`MODEL.ROI_HEADS.USE_FPN`, `AMP_VERBOSE` ...) are ordinary keys of the tree.
* Keys that moved, and values that the step files of the LST release leave blank, to be filled in by hand, are
  changed when a file is read (`modernise`).
* Published switches (`MODEL.FCOS_ON` ...) and endings of MODEL.BACKBONE.CONV_BODY (`-FPN` ...) stay in the
  tree, so that stored configs read and compare as before; they are aliases that `chosen_head` and
  `chosen_neck` resolve.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yacs.config import CfgNode

from maskrcnn_benchmark.utils.errors import ConfigError

NO_NECK = "none"
"""Value of MODEL.NECK: the head reads the backbone's feature maps."""

TWO_STAGE, PROPOSALS, PROPOSALS_SWITCH = "rcnn", "rpn", "RPN_ONLY"

CONV_BODY_ENDINGS = {"-FPN-RETINANET": "fpn_p6p7", "-FPN": "fpn", "-C4": NO_NECK, "-C5": NO_NECK}
"""Published endings of MODEL.BACKBONE.CONV_BODY, and the neck that they name."""

USE_C5 = "MODEL.RETINANET.USE_C5"
"""Published key of the neck `fpn_p6p7`: P6 is computed from C5, else from P5."""

PUBLISHED_CATALOG = "maskrcnn_benchmark/config/paths_catalog.py"
"""End of PATHS_CATALOG in configs that the published code wrote."""

_WITHOUT_NECK = ("FBNet",)

# Where a key was, and where it is now.
MOVED = {("MODEL", "BACKBONE", "OUT_CHANNELS"): ("MODEL", "RESNETS", "BACKBONE_OUT_CHANNELS")}


def modernise(tree: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Bring the content of a yaml file into the present form.

    A key without a value is left out and so keeps what it had before.

    Returns:
        The new tree, and lines for the log about what was changed or has no effect.
    """
    result, blank = _drop_blank(tree)
    notes = [f"{key} has no value; it keeps the one it had" for key in blank]
    catalog = result.get("PATHS_CATALOG")
    if isinstance(catalog, str) and catalog.endswith(PUBLISHED_CATALOG):
        del result["PATHS_CATALOG"]
        notes.append("PATHS_CATALOG is the published catalog, whose names are packaged; the file is not read")
    for old, new in MOVED.items():
        value = _value_at(result, old)
        if value is not None:
            _section(result, old).pop(old[-1])
            _section(result, new).setdefault(new[-1], value)
            notes.append(f"{'.'.join(old)} is now {'.'.join(new)}")
    return result, notes


def _drop_blank(tree: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Any], list[str]]:
    """Return the tree without keys that have no value, and the full names of these."""
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


def _value_at(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Return the value at a path; None when there is none."""
    node: Any = tree
    for part in path:
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node


def _section(tree: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return the section that holds the last part of a path, and make it if it is not there."""
    node = tree
    for part in path[:-1]:
        node = node.setdefault(part, {})
    return node


def chosen_head(model: CfgNode, switches: Mapping[str, str]) -> str:
    """Return the name of the model family.

    Args:
        model: node MODEL.
        switches: published key under MODEL -> one-stage family that it chooses. RPN_ONLY is no such switch:
            published one-stage files set it too, and it counts only where no one-stage family is chosen.

    Raises ConfigError when MODEL.HEAD and switches name different families.
    """
    on = [key for key in switches if model[key]]
    if len(on) > 1:
        keys = " and ".join(f"MODEL.{key}" for key in on)
        raise ConfigError(f"{keys} are True, but a model has one head: set one to False")
    if not model.HEAD:
        return switches[on[0]] if on else PROPOSALS if model[PROPOSALS_SWITCH] else TWO_STAGE
    other = {key: switches[key] for key in on}
    if model.HEAD == TWO_STAGE and model[PROPOSALS_SWITCH]:
        other[PROPOSALS_SWITCH] = PROPOSALS
    for key, name in other.items():
        if name != model.HEAD:
            raise ConfigError(
                f"MODEL.HEAD is {model.HEAD}, but MODEL.{key} is True, which means {name}: set MODEL.{key} "
                "False, or MODEL.HEAD ''"
            )
    return str(model.HEAD)


def split_conv_body(name: str) -> tuple[str, str]:
    """Split a value of MODEL.BACKBONE.CONV_BODY into backbone and neck ("" where it names none).

    R-50-FPN is R-50 with the neck fpn. Endings that name the last stage (-C4, -C5) belong to the backbone.
    """
    for ending, neck in CONV_BODY_ENDINGS.items():
        if name.endswith(ending):
            return (name if neck == NO_NECK else name.removesuffix(ending)), neck
    return name, NO_NECK if name in _WITHOUT_NECK else ""


def chosen_neck(model: CfgNode, *, default: str) -> str:
    """Return the neck that MODEL.NECK, or else the ending of MODEL.BACKBONE.CONV_BODY names; else `default`.

    Raises ConfigError when the two keys contradict each other.
    """
    conv_body = model.BACKBONE.CONV_BODY
    backbone, published = split_conv_body(conv_body)
    if model.NECK and published not in ("", model.NECK):
        raise ConfigError(
            f"MODEL.NECK is {model.NECK}, but MODEL.BACKBONE.CONV_BODY {conv_body} names the neck "
            f"{published}: set MODEL.NECK '', or CONV_BODY {backbone.removesuffix('-C4').removesuffix('-C5')}"
        )
    return model.NECK or published or default


def top_levels_from_c5(cfg: CfgNode) -> bool:
    """Return whether the neck `fpn_p6p7` computes P6 from C5, else from P5."""
    return bool(cfg.MODEL.RETINANET.USE_C5)
