"""utils.registry."""

from __future__ import annotations

import pytest

from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.registry import Registry, close_matches


def _backbones() -> Registry:
    registry: Registry = Registry("backbone", "modeling/backbones/build.py")
    for name in ("R-50-FPN", "R-101-FPN", "FBNet"):
        registry.register(name)(name.lower())
    return registry


def test_register_and_get() -> None:
    registry = _backbones()
    assert registry.get("FBNet") == "fbnet"
    assert "FBNet" in registry and "fbnet" not in registry
    assert registry.names() == ["FBNet", "R-101-FPN", "R-50-FPN"]


def test_decorator_returns_its_object() -> None:
    registry: Registry = Registry("thing", "here.py")

    @registry.register("a")
    def build() -> int:
        return 3

    assert build() == 3 and registry.get("a") is build


def test_unknown_name_lists_what_resembles_it() -> None:
    with pytest.raises(ConfigError, match=r"unknown backbone 'R-50-FPM'; did you mean R-50-FPN.*build\.py"):
        _backbones().get("R-50-FPM")


def test_nothing_like_it_lists_all() -> None:
    with pytest.raises(ConfigError, match=r"known: FBNet, R-101-FPN, R-50-FPN"):
        _backbones().get("zzzzzzz")


def test_double_registration_is_a_defect() -> None:
    registry = _backbones()
    with pytest.raises(ValueError, match="twice"):
        registry.register("FBNet")(1)


def test_close_matches_ignore_case() -> None:
    assert close_matches("fbnet", ["FBNet", "other"]) == ["FBNet"]
