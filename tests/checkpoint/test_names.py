"""checkpoint.matching and caffe2 names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn_benchmark.checkpoint.families.caffe2 import depth_of, rename_blobs
from maskrcnn_benchmark.checkpoint.matching import match_names, strip_module_prefix, suffix_match
from maskrcnn_benchmark.utils.errors import CheckpointError


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


@pytest.mark.parametrize(
    ("blob", "name"),
    [
        ("conv1_w", "conv1.weight"),
        ("res_conv1_bn_s", "bn1.weight"),
        ("conv1_gn_b", "bn1.bias"),
        ("res2_0_branch1_w", "layer1.0.downsample.0.weight"),
        ("res2_0_branch1_bn_b", "layer1.0.downsample.1.bias"),
        ("res4_5_branch2c_gn_s", "layer3.5.bn3.weight"),
        ("res5_2_branch2a_w", "layer4.2.conv1.weight"),
        ("fpn_inner_res2_2_sum_lateral_w", "fpn_inner1.weight"),
        ("fpn_inner_res5_2_sum_b", "fpn_inner4.bias"),
        ("fpn_res4_5_sum_w", "fpn_layer3.weight"),
        ("conv_rpn_fpn2_w", "rpn.head.conv.weight"),
        ("rpn_cls_logits_b", "rpn.head.cls_logits.bias"),
        ("rpn_bbox_pred_fpn2_w", "rpn.head.bbox_pred.weight"),
        ("cls_score_w", "cls_score.weight"),
        ("_[mask]_fcn3_w", "mask_fcn3.weight"),
        ("mask_fcn_logits_b", "mask_fcn_logits.bias"),
        ("conv_fcn8_w", "conv_fcn8.weight"),
        ("kps_score_lowres_w", "kps_score_lowres.weight"),
        ("pred_b", "fc1000.bias"),
    ],
)
def test_caffe2_names(blob: str, name: str) -> None:
    assert rename_blobs([blob], "R-50-FPN") == {blob: name}


def test_caffe2_depths() -> None:
    assert [depth_of(n) for n in ("R-50-C4", "R-101-FPN", "R-152", "R-50-FPN-RETINANET")] == [
        *("R-50", "R-101", "R-152", "R-50")
    ]
    assert rename_blobs(["fpn_res4_22_sum_w"], "R-101-FPN") == {"fpn_res4_22_sum_w": "fpn_layer3.weight"}
    assert rename_blobs(["fpn_res4_35_sum_w"], "R-152-FPN") == {"fpn_res4_35_sum_w": "fpn_layer3.weight"}
    with pytest.raises(CheckpointError, match="FPN blobs are known for R-50, R-101, R-152, not for R-18-FPN"):
        rename_blobs(["fpn_res4_5_sum_w"], "R-18-FPN")
