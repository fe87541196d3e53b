"""checkpoint.matching: names of files and of models."""

from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from maskrcnn_benchmark.checkpoint.io import save_atomic
from maskrcnn_benchmark.checkpoint.load import load_weights
from maskrcnn_benchmark.checkpoint.matching import (
    deform_names,
    match_names,
    strip_module_prefix,
    suffix_match,
)
from maskrcnn_benchmark.layers import DFConv2d


def test_module_prefix() -> None:
    assert strip_module_prefix({"module.a": 1, "module.module.b": 2}) == {"a": 1, "module.b": 2}
    assert strip_module_prefix({"module.a": 1, "b": 2}) == {"module.a": 1, "b": 2}
    assert strip_module_prefix({}) == {}


def test_suffix_match() -> None:
    model = [
        "backbone.body.stem.conv1.weight",
        "backbone.body.layer1.0.conv1.weight",
        "backbone.body.layer1.0.bn1.running_mean",
        "roi_heads.box.feature_extractor.head.layer4.0.conv1.weight",
        "roi_heads.mask.feature_extractor.head.layer4.0.conv1.weight",
        "roi_heads.box.predictor.cls_score.weight",
        "rpn.head.conv.weight",
    ]
    file = [
        "conv1.weight",
        "layer1.0.conv1.weight",
        "layer4.0.conv1.weight",
        "score.weight",
        "head.conv.weight",
    ]
    assert suffix_match(model, [*file, "rpn.head.conv.weight"]) == dict(
        zip(
            model,
            [
                "conv1.weight",
                "layer1.0.conv1.weight",
                None,
                *["layer4.0.conv1.weight"] * 2,
                None,
                "rpn.head.conv.weight",
            ],
            strict=True,
        )
    )


def test_the_stem_does_not_fill_blocks_of_a_deeper_network() -> None:
    deep = ["body.stem.bn1.weight", "body.layer3.22.bn1.weight"]
    assert suffix_match(deep, ["bn1.weight"]) == {deep[0]: "bn1.weight", deep[1]: None}


NAMES = st.lists(st.sampled_from(["a", "b", "0", "w"]), min_size=1, max_size=4).map(".".join)


@given(st.lists(NAMES, unique=True), st.lists(NAMES, unique=True))
def test_suffix_match_properties(model: list[str], file: list[str]) -> None:
    for name, match in suffix_match(model, file).items():
        assert (match == name) == (name in file)
        if match is not None:
            assert match in file and f".{name}".endswith(f".{match}")


def test_report() -> None:
    report = match_names(
        {"m.a.weight": (2, 3), "m.a.bias": (2,), "m.b.weight": (4,), "x": (1,)},
        {"a.weight": (2, 3), "m.b.weight": (5,), "x": (1,), "left.over": (9,)},
    )
    assert report.matched == {"m.a.weight": "a.weight", "x": "x"}
    assert report.missing == ["m.a.bias"] and report.unexpected == ["left.over"]
    assert report.mismatched == [("m.b.weight", "m.b.weight", (4,), (5,))]
    text = "\n".join(report.lines())
    assert "2 of the model's 4 tensors are in the file, 1 of them under a shorter name" in text
    assert "m.a (bias)" in text and "left (over)" in text and "(4,)" in text and "(5,)" in text


def test_long_reports_are_cut() -> None:
    report = match_names({f"m{i}.w": (1,) for i in range(100)}, {f"n{i}.w": (1,) for i in range(3)})
    lines = report.lines(limit=5)
    assert len(lines) == 1 + 1 + 5 + 1 + 1 + 3 and "95 more" in lines[7]


DEFORMABLE_MODEL = [
    *("body.layer1.0.conv2.weight", "body.layer2.0.conv2.offset.weight", "body.layer2.0.conv2.offset.bias"),
    *("body.layer2.0.conv2.conv.weight", "head.offset.weight", "rpn.conv.weight"),
]


def test_only_deformable_convolutions_are_renamed() -> None:
    file = [
        "layer1.0.conv2.weight",
        "layer2.0.conv2.weight",
        "conv2.weight",
        "rpn.conv.weight",
        "head.weight",
    ]
    names = list(deform_names(dict.fromkeys(file), DEFORMABLE_MODEL))
    assert names == [file[0], "layer2.0.conv2.conv.weight", *file[2:]]
    assert list(deform_names(dict.fromkeys(DEFORMABLE_MODEL), DEFORMABLE_MODEL)) == DEFORMABLE_MODEL
    both = ["layer2.0.conv2.weight", "layer2.0.conv2.conv.weight"]
    assert list(deform_names(dict.fromkeys(both), DEFORMABLE_MODEL)) == both


def test_a_file_without_offsets_starts_a_deformable_model(tmp_path: Path) -> None:
    def backbone(conv: nn.Module) -> nn.ModuleDict:
        return nn.ModuleDict({"layer2": nn.Sequential(nn.ModuleDict({"conv2": conv}))})

    plain = backbone(nn.Conv2d(2, 3, 3, bias=False))
    save_atomic(plain.state_dict(), tmp_path / "plain.pth")
    model = nn.ModuleDict({"body": backbone(DFConv2d(2, 3))})
    report = load_weights(model, tmp_path / "plain.pth", conv_body="R-50-FPN")
    weight = model["body"]["layer2"][0]["conv2"].conv.weight
    assert torch.equal(weight, plain["layer2"][0]["conv2"].weight)
    assert not report.unexpected and len(report.missing) == 2
