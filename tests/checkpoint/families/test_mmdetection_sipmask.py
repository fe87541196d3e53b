"""Names of FCOS and SipMask in published files: into our models and back, and files of another variant."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskrcnn_benchmark.checkpoint.convert import convert_file, describe_file
from maskrcnn_benchmark.checkpoint.families.mmdetection_sipmask import (
    MMDETECTION_SIPMASK,
    TABLE,
    export_sipmask,
)
from maskrcnn_benchmark.checkpoint.families.table import OURS, family_of
from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.checkpoint.load import load_weights
from maskrcnn_benchmark.checkpoint.matching import match_names
from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.utils.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[3]
SHAPES = ROOT / "tests" / "parity" / "golden" / "sipmask"
# Published list of names and shapes -> file in configs/.
CONFIGS = {
    "benchmark_R_50": "sipmask/sipmask_R_50_FPN_1x",
    "benchmark_R_101": "sipmask/sipmask_R_101_FPN_ms_3x",
    "fcos_r50": "fcos/fcos_R_50_FPN_1x",
    "fcos_imprv_r50": "fcos/fcos_imprv_R_50_FPN_1x",
} | {
    f"mmdet_{name}": f"sipmask/{name}"
    for name in (
        "sipmask_r50_caffe_fpn_gn_1x",
        "sipmask_r50_caffe_fpn_gn_ms_2x",
        "sipmask_r101_caffe_fpn_gn_ms_4x",
        "sipmask_r50_caffe_fpn_ssd_6x",
        "sipmask_r50_caffe_fpn_ssd_gn_10x",
        "sipmask_r101_caffe_fpn_ssd_6x",
        "sipmask_r101_caffe_fpn_ssd_gn_10x",
        "sipmask_plusplus_r101_caffe_fpn_ssd_6x",
        "sipmask_plusplus_r101_caffe_fpn_ssd_gn_10x",
    )
}
THEIRS = [name for name in CONFIGS if name.startswith("mmdet_")]
COUNTER = "num_batches_tracked"
TINY = ("MODEL.RESNETS.STEM_FUNC", "StemWithFixedBatchNorm")
TINY += ("MODEL.RESNETS.TRANS_FUNC", "BasicBlockWithFixedBatchNorm", "MODEL.DEVICE", "cpu")
EPSILON = ("MODEL.RESNETS.FROZEN_BN_EPS", 1e-5)
# A small model with the names of mmdetection's real-time files.
REAL_TIME = (*TINY, *EPSILON, "MODEL.SIPMASK.ALIGN_BIAS", False, "MODEL.SIPMASK.TOWER_NORM", "")


@cache
def _shapes(name: str) -> dict[str, tuple[int, ...]]:
    listed = json.loads((SHAPES / f"shapes_{name}.json").read_text())
    return {key: tuple(shape) for key, shape in listed.items()}


def _empty(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors without content."""
    return {
        key: torch.empty(shape, device="meta", dtype=torch.int64 if key.endswith(COUNTER) else None)
        for key, shape in shapes.items()
    }


def _ours(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published file under our names."""
    state = _empty(_shapes(name))
    state = TABLE.to_ours(state) if name in THEIRS else state
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


@cache
def _model(config: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = build_detection_model(load_config(ROOT / "configs" / f"{config}.yaml")).state_dict()
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _tiny(name: str, *opts: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_detection_model(load_config(ROOT / "configs" / "tiny" / f"{name}.yaml", opts))


def _filled(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a model with random values, variances positive."""
    source = torch.Generator().manual_seed(1)
    for name, tensor in model.state_dict().items():
        yield name, torch.rand(tensor.shape, generator=source) + 0.5


def test_every_list_is_tried() -> None:
    listed = {path.stem.removeprefix("shapes_") for path in SHAPES.glob("shapes_*.json")}
    assert listed == set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_published_names_are_those_of_the_model(name: str) -> None:
    assert _ours(name) == _model(CONFIGS[name])
    assert family_of(_empty(_shapes(name))) == (MMDETECTION_SIPMASK if name in THEIRS else OURS)


@pytest.mark.parametrize("name", THEIRS)
def test_back_to_the_published_names_and_shapes(name: str) -> None:
    from_file = export_sipmask(TABLE.to_ours(_empty(_shapes(name))))
    assert list(from_file) == list(_shapes(name))
    assert {key: tuple(t.shape) for key, t in from_file.items()} == _shapes(name)
    assert {t.dtype for key, t in from_file.items() if key.endswith(COUNTER)} == {torch.int64}
    from_model = export_sipmask(_empty(_model(CONFIGS[name])))
    assert {key: tuple(t.shape) for key, t in from_model.items()} == _shapes(name)


def test_examples_of_the_table() -> None:
    state = _empty(_shapes("mmdet_sipmask_plusplus_r101_caffe_fpn_ssd_gn_10x"))
    marked = {key: torch.full((), i) for i, key in enumerate(state)}
    ours = {int(value): key for key, value in TABLE.to_ours(marked).items()}
    pairs = {key: ours.get(int(value)) for key, value in marked.items()}
    assert pairs["backbone.conv1.weight"] == "backbone.body.stem.conv1.weight"
    assert pairs["backbone.bn1.running_mean"] == "backbone.body.stem.bn1.running_mean"
    assert pairs["backbone.bn1.num_batches_tracked"] is None
    assert pairs["backbone.layer3.21.conv2.weight"] == "backbone.body.layer3.21.conv2.conv.weight"
    assert pairs["backbone.layer3.21.conv2.conv_offset.bias"] == "backbone.body.layer3.21.conv2.offset.bias"
    assert pairs["backbone.layer3.20.conv2.weight"] == "backbone.body.layer3.20.conv2.weight"
    assert pairs["backbone.layer2.0.downsample.1.bias"] == "backbone.body.layer2.0.downsample.1.bias"
    assert pairs["neck.lateral_convs.0.conv.bias"] == "backbone.fpn.fpn_inner2.bias"
    assert pairs["neck.fpn_convs.2.conv.weight"] == "backbone.fpn.fpn_layer4.weight"
    assert pairs["neck.fpn_convs.3.conv.weight"] == "backbone.fpn.top_blocks.p6.weight"
    assert pairs["neck.fpn_convs.4.conv.weight"] == "backbone.fpn.top_blocks.p7.weight"
    assert pairs["bbox_head.reg_convs.1.conv.weight"] == "rpn.head.bbox_tower.3.weight"
    assert pairs["bbox_head.reg_convs.1.gn.bias"] == "rpn.head.bbox_tower.4.bias"
    assert pairs["bbox_head.fcos_cls.weight"] == "rpn.head.cls_logits.weight"
    assert pairs["bbox_head.fcos_reg.weight"] == "rpn.head.bbox_pred.weight"
    assert pairs["bbox_head.fcos_centerness.bias"] == "rpn.head.centerness.bias"
    assert pairs["bbox_head.scales.4.scale"] == "rpn.head.scales.4.scale"
    assert pairs["bbox_head.sip_mask_lat0.weight"] == "rpn.head.sip_mask_lat0.weight"
    assert pairs["bbox_head.convs_scoring.5.conv.bias"] == "rpn.head.convs_scoring.5.bias"
    assert pairs["bbox_head.mask_scoring.weight"] == "rpn.head.mask_scoring.weight"


def test_older_names_of_offsets() -> None:
    old = {
        name.replace("conv2.conv_offset.", "conv2_offset."): shape
        for name, shape in _shapes("mmdet_sipmask_plusplus_r101_caffe_fpn_ssd_6x").items()
    }
    shapes = {key: tuple(t.shape) for key, t in TABLE.to_ours(_empty(old)).items()}
    assert shapes == _model("sipmask/sipmask_plusplus_r101_caffe_fpn_ssd_6x")


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_file_of_mmdetection_loads(tmp_path: Path, prefix: str, wrapped: bool) -> None:
    model = _tiny("sipmask_plusplus", *REAL_TIME, "MODEL.RESNETS.TRANS_FUNC", "BottleneckWithFixedBatchNorm")
    filled = dict(_filled(model))
    state = {prefix + name: tensor for name, tensor in export_sipmask(filled).items()}
    meta = {"mmdet_version": "1.0", "CLASSES": ("cat", "dog"), "epoch": 12, "time": "today"}
    torch.save({"meta": meta, "state_dict": state, "optimizer": {}} if wrapped else state, tmp_path / "a.pth")
    report = load_weights(model, tmp_path / "a.pth", conv_body="R-10-FPN-RETINANET", complete=True)
    assert not report.missing and not report.unexpected and not report.mismatched
    assert all(torch.equal(tensor, filled[name]) for name, tensor in model.state_dict().items())
    if wrapped:
        assert read_checkpoint(tmp_path / "a.pth")["classes"] == ["__background__", "cat", "dog"]
        assert f"{MMDETECTION_SIPMASK.name}, {len(state)} tensors" in describe_file(tmp_path / "a.pth")


def test_a_file_of_the_benchmark_gives_its_weights_alone(tmp_path: Path) -> None:
    model = _tiny("sipmask", *TINY)
    state = dict(_filled(model))
    content = {"model": {f"module.{n}": t for n, t in state.items()}, "iteration": 90000}
    torch.save(content | {"optimizer": {"state": {}}, "scheduler": {"last_epoch": 1}}, tmp_path / "a.pth")
    report = load_weights(model, tmp_path / "a.pth", conv_body="R-10-FPN-RETINANET", complete=True)
    assert not report.missing and not report.unexpected
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_variances_need_their_epsilon(tmp_path: Path) -> None:
    model = _tiny("sipmask_544", *REAL_TIME)
    torch.save(export_sipmask(dict(_filled(model))), tmp_path / "a.pth")
    assert not load_weights(model, tmp_path / "a.pth", conv_body="R-10-FPN-RETINANET", complete=True).missing
    other = _tiny("sipmask_544", *REAL_TIME, "MODEL.RESNETS.FROZEN_BN_EPS", 0.0)
    with pytest.raises(CheckpointError, match=r"set MODEL\.RESNETS\.FROZEN_BN_EPS 1e-05 \(now 0\)"):
        load_weights(other, tmp_path / "a.pth", conv_body="R-10-FPN-RETINANET")


VARIANTS = [
    # file, model, a tensor that the message names, and the key
    (("MODEL.SIPMASK.NUM_CONVS", 2), ("MODEL.SIPMASK.NUM_CONVS", 4), r"cls_tower\.3", "NUM_CONVS"),
    (
        ("MODEL.SIPMASK.NUM_CONVS", 4),
        ("MODEL.SIPMASK.NUM_CONVS", 2),
        r"the model does not have .*cls_tower\.3",
        "NUM_CONVS",
    ),
    (("MODEL.SIPMASK.TOWER_NORM", ""), (), r"bbox_tower\.1", "TOWER_NORM"),
    ((), ("MODEL.SIPMASK.TOWER_BIAS", False), r"cls_tower\.0", "TOWER_BIAS"),
    ((), ("MODEL.SIPMASK.ALIGN_BIAS", False), r"feat_align\.conv_adaption", "ALIGN_BIAS"),
]


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize(("file", "model_opts", "name", "key"), VARIANTS)
def test_another_variant_is_refused(
    tmp_path: Path, file: tuple, model_opts: tuple, name: str, key: str, complete: bool
) -> None:
    """For testing and as initial weights, whether the file has too little or too much."""
    torch.save({"model": _tiny("sipmask", *TINY, *file).state_dict()}, tmp_path / "a.pth")
    model = _tiny("sipmask", *TINY, *model_opts)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=rf"a\.pth is a file of another model; .*{name}.*check .*{key}"
    ) as e:
        load_weights(model, tmp_path / "a.pth", conv_body="R-10-FPN-RETINANET", complete=complete)
    assert "\n" not in str(e.value)
    assert ("WEIGHT_ALLOW_MISMATCH True" in str(e.value)) == (not complete)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    if not complete:
        load_weights(model, tmp_path / "a.pth", conv_body="R-10-FPN-RETINANET", allow_mismatch=True)


def test_a_box_detector_starts_no_mask_detector_unasked(tmp_path: Path) -> None:
    torch.save({"model": _tiny("fcos", *TINY).state_dict()}, tmp_path / "a.pth")
    model = _tiny("sipmask", *TINY)
    with pytest.raises(CheckpointError, match=r"lacks .*feat_align.*check MODEL\.SIPMASK_ON"):
        load_weights(model, tmp_path / "a.pth", conv_body="R-10-FPN-RETINANET")
    report = load_weights(model, tmp_path / "a.pth", conv_body="R-10-FPN-RETINANET", allow_mismatch=True)
    assert all("feat_align" in n or "sip_" in n for n in report.missing) and report.missing


@pytest.mark.parametrize("name", ["fcos", "sipmask"])
def test_a_backbone_starts_a_training_but_is_no_detector(tmp_path: Path, name: str) -> None:
    model = _tiny(name, *TINY)
    weights = {
        n.removeprefix("backbone.body."): t for n, t in _filled(model) if n.startswith("backbone.body.")
    }
    torch.save(weights, tmp_path / "backbone.pth")
    report = load_weights(model, tmp_path / "backbone.pth", conv_body="R-10-FPN-RETINANET")
    assert len(report.matched) == len(weights) and not report.unexpected
    with pytest.raises(
        CheckpointError, match=r"it lacks \d+ tensors: .*configuration must be that of the file"
    ):
        load_weights(model, tmp_path / "backbone.pth", conv_body="R-10-FPN-RETINANET", complete=True)


def test_a_deeper_backbone_is_no_detector(tmp_path: Path) -> None:
    """Every tensor of the model is in the file, and yet it is another network."""
    shapes = _ours("benchmark_R_101")
    model = _model("sipmask/sipmask_R_50_FPN_1x")
    report = match_names(model, shapes)
    assert not report.missing and not report.mismatched and len(report.unexpected) == 586 - 331
    torch.save(
        {"model": _tiny("sipmask", *TINY, "MODEL.BACKBONE.CONV_BODY", "R-18-FPN-RETINANET").state_dict()},
        tmp_path / "a.pth",
    )
    with pytest.raises(
        CheckpointError, match=r"does not have \d+ tensors: backbone.body.layer1.1.*CONV_BODY"
    ):
        load_weights(
            _tiny("sipmask", *TINY), tmp_path / "a.pth", conv_body="R-10-FPN-RETINANET", complete=True
        )


@pytest.mark.parametrize(
    ("config", "opts", "message"),
    [
        ("sipmask", (), r"have no .*rpn\.head\.cls_tower\.0\.bias.*TOWER_BIAS False"),
        ("sipmask_544", ("MODEL.SIPMASK.ALIGN_BIAS", True), r"conv_adaption\.bias.*ALIGN_BIAS False"),
        ("sipmask_544", ("MODEL.SIPMASK.USE_DCN_IN_TOWER", True), r"bbox_tower\.3\.offset.*USE_DCN_IN_TOWER"),
        ("retinanet_R_18_FPN_gn", (), "no weights of a SipMask"),
        ("mask_rcnn_R_10_FPN_gn", (), "no weights of a SipMask"),
    ],
)
def test_what_mmdetection_cannot_hold(config: str, opts: tuple, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        export_sipmask(_tiny(config, *opts).state_dict())


def test_the_tool_converts_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def tool(*words: object) -> object:
        sys.argv = ["import_weights.py", *map(str, words)]
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / "tools" / "import_weights.py"), run_name="__main__")
        return stop.value.code

    model = _tiny("sipmask_544", *REAL_TIME)
    theirs = export_sipmask(dict(_filled(model)))
    torch.save({"meta": {}, "state_dict": theirs}, tmp_path / "a.pth")
    config = ROOT / "configs" / "tiny" / "sipmask_544.yaml"
    fits = ["--config-file", config, *REAL_TIME]
    assert not tool(tmp_path / "a.pth", "--out", tmp_path / "ours.pth", *fits)
    assert not tool(tmp_path / "ours.pth", "--to", "mmdetection", "--out", tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert list(back) == list(theirs)
    assert all(torch.equal(back[n], t) and back[n].shape == t.shape for n, t in theirs.items())
    assert tool(tmp_path / "a.pth", *fits, "MODEL.SIPMASK.NUM_CONVS", 4) == 1
    with pytest.raises(
        CheckpointError, match="one-stage weights have no names in torchvision detector files"
    ):
        convert_file(tmp_path / "ours.pth", to="torchvision", conv_body="R-10-FPN-RETINANET")
