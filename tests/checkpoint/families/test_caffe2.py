"""Names of Caffe2 blobs: alone, and those of published files against whole models (shapes only)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maskrcnn_benchmark.checkpoint.families.caffe2 import LAST_BLOCKS, depth_of, rename_blobs
from maskrcnn_benchmark.checkpoint.matching import Shape, match_names, strip_module_prefix
from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.utils.errors import CheckpointError


def _shapes(config: Path) -> dict[str, Shape]:
    with torch.device("meta"):
        model = build_detection_model(load_config(config))
    return {name: tuple(t.shape) for name, t in model.state_dict().items()}


def _backbone_blobs(depth: str) -> list[str]:
    """Blob names of an ImageNet file of Detectron."""
    names = ["conv1_w", "res_conv1_bn_s", "res_conv1_bn_b"]
    for stage, last in enumerate(LAST_BLOCKS[depth], 2):
        for block in range(last + 1):
            for branch in ("2a", "2b", "2c", *(["1"] if block == 0 else [])):
                stem = f"res{stage}_{block}_branch{branch}"
                names += [f"{stem}_w", f"{stem}_bn_s", f"{stem}_bn_b"]
    return names


def _detector_blobs(depth: str) -> list[str]:
    """Blob names of a Mask R-CNN with FPN of Detectron."""
    last = LAST_BLOCKS[depth]
    stems = [f"fpn_inner_res{s}_{last[s - 2]}_sum_lateral" for s in (2, 3, 4)]
    stems += [f"fpn_inner_res5_{last[3]}_sum", *(f"fpn_res{s}_{last[s - 2]}_sum" for s in (2, 3, 4, 5))]
    stems += [
        "conv_rpn_fpn2",
        "rpn_cls_logits_fpn2",
        "rpn_bbox_pred_fpn2",
        "fc6",
        "fc7",
        "cls_score",
        "bbox_pred",
    ]
    stems += [*(f"_[mask]_fcn{i}" for i in (1, 2, 3, 4)), "conv5_mask", "mask_fcn_logits"]
    return _backbone_blobs(depth) + [f"{stem}_{part}" for stem in stems for part in "wb"]


def _by_blobs(model: dict[str, Shape], blobs: list[str], conv_body: str) -> dict[str, Shape]:
    """Shapes of the renamed blobs: those of the model's tensor that has the blob's role."""
    owners = {"bbox_pred": "roi_heads.box.predictor.bbox_pred", "conv1": "backbone.body.stem.conv1"}
    owners["bn1"] = "backbone.body.stem.bn1"
    result = {}
    for name in rename_blobs(blobs, conv_body).values():
        module, _, leaf = name.rpartition(".")
        full = f"{owners[module]}.{leaf}" if module in owners else name
        result[name] = next(shape for n, shape in model.items() if n.endswith(full))
    return result


@pytest.mark.parametrize(("name", "depth"), [("R_50", "R-50"), ("R_101", "R-101")])
def test_detectron_mask_model(project_root: Path, name: str, depth: str) -> None:
    model = _shapes(project_root / f"configs/e2e_mask_rcnn_{name}_FPN_1x.yaml")
    report = match_names(model, _by_blobs(model, _detector_blobs(depth), f"{depth}-FPN"))
    assert report.unexpected == [] and report.mismatched == []
    assert {n.rpartition(".")[2] for n in report.missing if "cell_anchors" not in n} == {
        "running_mean",
        "running_var",
    }


def test_imagenet_backbone_of_a_c4_model(project_root: Path) -> None:
    model = _shapes(project_root / "configs/e2e_mask_rcnn_R_50_C4_1x.yaml")
    report = match_names(model, _by_blobs(model, _backbone_blobs("R-50"), "R-50-C4"))
    assert report.unexpected == [] and report.mismatched == []
    for head in ("box", "mask"):
        name = f"roi_heads.{head}.feature_extractor.head.layer4.2.conv3.weight"
        assert report.matched[name] == "layer4.2.conv3.weight"


def test_shallow_file_in_a_deep_model(project_root: Path) -> None:
    shallow = _shapes(project_root / "configs/e2e_faster_rcnn_R_50_FPN_1x.yaml")
    deep = _shapes(project_root / "configs/e2e_faster_rcnn_R_101_FPN_1x.yaml")
    report = match_names(deep, _by_blobs(shallow, _backbone_blobs("R-50"), "R-50-FPN"))
    assert report.mismatched == []
    assert "backbone.body.layer3.6.conv1.weight" in report.missing
    assert not any(".layer3.6." in n for n in report.matched)


def test_model_zoo_file(project_root: Path) -> None:
    model = _shapes(project_root / "configs/e2e_mask_rcnn_R_50_FPN_1x.yaml")
    report = match_names(model, strip_module_prefix({f"module.{n}": s for n, s in model.items()}))
    assert len(report.matched) == 312 and not report.missing and not report.unexpected


def test_trimmed_coco_file_in_the_lst_base_model(project_root: Path) -> None:
    coco = _shapes(project_root / "configs/e2e_mask_rcnn_R_50_FPN_1x.yaml")
    model = _shapes(project_root / "configs/lst/lvis_v0.5_270_6x160.yaml")
    trimmed = {
        n: s for n, s in coco.items() if not n.startswith(("roi_heads.box.predictor", "roi_heads.mask.pred"))
    }
    report = match_names(model, trimmed)
    assert report.unexpected == [] and report.mismatched == []
    assert any(n.startswith("roi_heads.bbox2mask") for n in report.missing)
    assert "roi_heads.box.predictor.scale_cls" in report.missing


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
