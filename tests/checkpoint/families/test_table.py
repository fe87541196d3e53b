"""checkpoint.families.table: which family a file is of, and where its tensors can go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet18

from maskrcnn_benchmark.checkpoint.families import table
from maskrcnn_benchmark.checkpoint.families.base import WeightFamily
from maskrcnn_benchmark.checkpoint.families.table import (
    FAMILIES,
    OURS,
    UNKNOWN,
    export_names,
    family_of,
    rename_from_ours,
)
from maskrcnn_benchmark.checkpoint.load import load_weights
from maskrcnn_benchmark.utils.errors import CheckpointError

GOLDEN = Path(__file__).resolve().parents[2] / "parity" / "golden" / "sipmask"


def _state(*names: str) -> dict[str, Tensor]:
    return {name: torch.zeros(1) for name in names}


def test_every_family_is_recognised() -> None:
    shapes = json.loads((GOLDEN / "shapes_mmdet_sipmask_r50_caffe_fpn_gn_1x.json").read_text())
    detector = _state("backbone.body.conv1.weight", "backbone.fpn.inner_blocks.0.0.weight", "roi_heads.x.w")
    cases = [
        ({}, "R-50.pkl"),
        (detector, ""),
        (_state(*shapes), ""),
        (resnet18(weights=None).state_dict(), ""),
        (_state("backbone.body.stem.conv1.weight"), ""),
        (mobilenet_v2(weights=None).state_dict(), ""),
    ]
    assert [family_of(state, path) for state, path in cases] == list(FAMILIES)
    assert family_of(_state("x.weight")) is UNKNOWN and family_of({}) is UNKNOWN


def test_names_are_unique_and_exports_known() -> None:
    assert len({family.name for family in (*FAMILIES, UNKNOWN)}) == len(FAMILIES) + 1
    assert export_names() == ("ours", "torchvision", "mmdetection")
    state = _state("backbone.body.stem.conv1.weight")
    assert rename_from_ours(state, "ours") == state
    with pytest.raises(CheckpointError, match="have no names in mmdetection SipMask files"):
        rename_from_ours(state, "mmdetection")


def test_a_family_is_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading asks the record alone."""
    toy = WeightFamily(
        name="toy",
        matches=lambda state, path: all(name.startswith("toy/") for name in state),
        to_ours=lambda state, conv_body: {
            name.removeprefix("toy/").replace("/", "."): tensor for name, tensor in state.items()
        },
    )
    monkeypatch.setattr(table, "FAMILIES", (*FAMILIES, toy))
    model = nn.ModuleDict({"head": nn.Linear(2, 3)})
    torch.save({"toy/head/weight": torch.ones(3, 2), "toy/head/bias": torch.ones(3)}, tmp_path / "a.pth")
    report = load_weights(model, tmp_path / "a.pth", conv_body="R-50-FPN", complete=True)
    assert not report.missing and not report.unexpected
    assert all((tensor == 1).all() for tensor in model.state_dict().values())


def test_expected_config_of_single_files() -> None:
    caffe2 = family_of({}, "a/R-50.pkl")
    key = "MODEL.RESNETS.STRIDE_IN_1X1"
    assert caffe2.expects("a/R-50.pkl")[key] is True
    assert caffe2.expects("X-101-32x8d.pkl")[key] is False
    assert key not in caffe2.expects("model_final.pkl")
    assert OURS.expects("model_final.pth") == {}
