"""Weights of torchvision's detectors: names both ways, and equal outputs of equal networks."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.detection import keypointrcnn_resnet50_fpn, maskrcnn_resnet50_fpn
from torchvision.models.mobilenetv2 import mobilenet_v2

from maskrcnn_benchmark.checkpoint.families.table import family_of
from maskrcnn_benchmark.checkpoint.families.torchvision import (
    export_detector,
    from_torchvision,
    import_detector,
    to_torchvision,
)
from maskrcnn_benchmark.checkpoint.load import load_weights
from maskrcnn_benchmark.checkpoint.matching import match_by_order
from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.structures.image_list import to_image_list
from maskrcnn_benchmark.utils.errors import CheckpointError

COUNTER = "num_batches_tracked"
OPTS = ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.STRIDE_IN_1X1", "False"]


@pytest.fixture(scope="module")
def peer() -> nn.Module:
    """torchvision's Mask R-CNN with 81 classes and batch norm statistics that are not trivial."""
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=81)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 4.0)
        if name.endswith("running_mean"):
            nn.init.normal_(buffer, std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def peer_file(peer: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weight file."""
    path = tmp_path_factory.mktemp("peer") / "mask_rcnn.pth"
    torch.save(peer.state_dict(), path)
    return path


def _ours(project_root: Path) -> nn.Module:
    cfg = load_config(str(project_root / "configs" / "e2e_mask_rcnn_R_50_FPN_1x.yaml"), OPTS)
    return build_detection_model(cfg).eval()


def test_a_file_of_torchvision_computes_the_same(
    peer: nn.Module, peer_file: Path, project_root: Path
) -> None:
    model = _ours(project_root)
    report = load_weights(model, peer_file, conv_body="R-50-FPN")
    assert all("anchor_generator" in name for name in report.missing)
    assert not report.unexpected and not report.mismatched
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = list(peer.backbone(image).values())
        features = model.backbone(image)
        logits, deltas = peer.rpn.head(expected)
        assert len(features) == len(expected) == 5
        for ours, theirs in zip(features, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))
        our_logits, our_deltas = model.rpn.head(features)
        for ours, theirs in zip([*our_logits, *our_deltas], [*logits, *deltas], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max() + 1))
        boxes = torch.tensor([[4.0, 4.0, 60.0, 50.0]])
        pooled = torch.randn(3, 256, 7, 7)
        head = peer.roi_heads.box_predictor(peer.roi_heads.box_head(pooled))
        box = model.roi_heads.box
        ours = box.predictor(
            box.feature_extractor.fc7(box.feature_extractor.fc6(pooled.flatten(1)).relu()).relu()
        )
        torch.testing.assert_close(ours[0], head[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours[1], head[1], rtol=1e-4, atol=1e-5)
        mask = peer.roi_heads.mask_predictor(peer.roi_heads.mask_head(torch.randn(2, 256, 14, 14)))
        assert mask.shape == (2, 81, 28, 28) and len(to_image_list([image[0]])) == len(boxes)


def test_names_there_and_back(peer: nn.Module, project_root: Path) -> None:
    state = {name: t for name, t in peer.state_dict().items() if not name.endswith(COUNTER)}
    back = export_detector(import_detector(state))
    assert list(back) == list(state)
    for name, tensor in state.items():
        torch.testing.assert_close(back[name], tensor)
    with torch.device("meta"):
        keypoints = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    for name in keypoints:
        assert to_torchvision(from_torchvision(name)) == name
    ours = {from_torchvision(name) for name in keypoints}
    assert "roi_heads.keypoint.feature_extractor.conv_fcn8.weight" in ours
    assert "roi_heads.keypoint.predictor.kps_score_lowres.bias" in ours


@pytest.mark.parametrize(
    ("old", "ours"),
    [
        ("backbone.fpn.inner_blocks.0.weight", "backbone.fpn.fpn_inner1.weight"),
        ("backbone.fpn.layer_blocks.3.bias", "backbone.fpn.fpn_layer4.bias"),
        ("rpn.head.conv.weight", "rpn.head.conv.weight"),
        ("roi_heads.mask_head.mask_fcn2.bias", "roi_heads.mask.feature_extractor.mask_fcn2.bias"),
    ],
)
def test_names_of_older_files(old: str, ours: str) -> None:
    assert from_torchvision(old) == ours


def test_pairing_match_by_order() -> None:
    backbone = mobilenet_v2(weights=None).features.state_dict()
    renamed = {f"layer.{i}": tensor for i, tensor in enumerate(backbone.values())}
    kept = [name for name in backbone if not name.endswith("num_batches_tracked")]
    plain = {f"x.{i}": backbone[name] for i, name in enumerate(kept)} | {"classifier.w": torch.zeros(3)}
    paired = match_by_order(plain, backbone)
    assert list(paired) == kept and all(torch.equal(paired[name], backbone[name]) for name in kept)
    assert family_of(renamed).name == "unknown"
    with pytest.raises(CheckpointError, match="the first file has 2 tensors"):
        match_by_order(dict(list(plain.items())[:2]), backbone, where="the first file")
    swapped = {"x.1": plain["x.1"], **plain}
    with pytest.raises(CheckpointError, match=r"by order x\.1 \(32,\) meets 0\.0\.weight \(32, 3, 3, 3\)"):
        match_by_order(swapped, backbone)


def _tool(project_root: Path, *words: Any) -> int:
    """Exit status of tools/import_weights.py."""
    sys.argv = ["import_weights.py", *map(str, words)]
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(project_root / "tools" / "import_weights.py"), run_name="__main__")
    return int(left.value.code or 0)


def test_tool(
    peer: nn.Module, peer_file: Path, project_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = project_root / "configs" / "e2e_mask_rcnn_R_50_FPN_1x.yaml"
    assert _tool(project_root, peer_file) == 0
    text = capsys.readouterr().out
    assert "torchvision detector" in text and "backbone.fpn.inner_blocks" in text
    assert _tool(project_root, peer_file, "--out", tmp_path / "o.pth", "--config-file", config, *OPTS) == 0
    assert "wrote" in capsys.readouterr().out
    assert _tool(project_root, tmp_path / "o.pth", "--to", "torchvision", "--out", tmp_path / "t.pth") == 0
    again = torch.load(tmp_path / "t.pth", weights_only=True)
    assert set(again) == {name for name in peer.state_dict() if not name.endswith(COUNTER)}
    few = ("--config-file", config, *OPTS, "MODEL.ROI_BOX_HEAD.NUM_CLASSES", "5")
    assert _tool(project_root, peer_file, *few) == 1
    assert "have another shape" in capsys.readouterr().out


def test_tool_pairs_by_order(project_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = project_root / "configs" / "torchvision" / "mask_rcnn_mobilenet_v2_FPN_1x.yaml"
    state = mobilenet_v2(weights=None).state_dict()
    torch.save({f"net.{i}": tensor for i, tensor in enumerate(state.values())}, tmp_path / "x.pt")
    words = ("--by-order", "--out", tmp_path / "backbone.pth", "--config-file", config, "MODEL.DEVICE", "cpu")
    assert _tool(project_root, tmp_path / "x.pt", *words) == 2  # counters have lost their names
    assert "by order net.5" in capsys.readouterr().err
    plain = [tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")]
    torch.save({f"net.{i}": tensor for i, tensor in enumerate(plain)}, tmp_path / "x.pt")
    assert _tool(project_root, tmp_path / "x.pt", *words) == 0
    made = torch.load(tmp_path / "backbone.pth", weights_only=True)
    assert torch.equal(made["features.0.0.weight"], state["features.0.0.weight"])
    assert _tool(project_root, tmp_path / "x.pt", "--by-order", "--out", tmp_path / "b.pth") == 2
