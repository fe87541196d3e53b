"""Small building blocks of configuration checks."""

from __future__ import annotations

from yacs.config import CfgNode

from maskrcnn_benchmark.config.keys import get_value
from maskrcnn_benchmark.utils.errors import ConfigError


def require(condition: bool, text: str) -> None:
    """Raise `ConfigError(text)` unless the condition holds."""
    if not condition:
        raise ConfigError(text)


def choice(cfg: CfgNode, key: str, names: tuple[str, ...]) -> None:
    """The value of `key` must be one of `names`."""
    value = get_value(cfg, key)
    known = " or ".join(name or "''" for name in names)
    require(value in names, f"{key} must be {known}, found {value!r}")


def at_least(cfg: CfgNode, key: str, least: float) -> None:
    """The value of `key` must not be below `least`, nor NaN."""
    value = get_value(cfg, key)
    require(value >= least, f"{key} must be at least {least}, found {value}")
