"""checkpoint.load: models started from files of every published family."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from maskrcnn_benchmark.checkpoint.io import save_atomic
from maskrcnn_benchmark.checkpoint.load import load_weights
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.utils.errors import CheckpointError


class _Tiny(nn.Module):
    """Names of a C4 model in small: stem, one block, layer4 inside the heads (listed twice), classifier."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict(
            {"body": nn.ModuleDict({"stem": _stem(), "layer1": nn.Sequential(_stem())})}
        )
        head = nn.ModuleDict({"layer4": nn.Sequential(_stem())})
        self.roi_heads = nn.ModuleDict(
            {
                "box": nn.ModuleDict(
                    {"feature_extractor": nn.ModuleDict({"head": head}), "cls_score": nn.Linear(2, classes)}
                ),
                "mask": nn.ModuleDict({"feature_extractor": nn.ModuleDict({"head": head})}),
            }
        )


def _stem() -> nn.Module:
    return nn.ModuleDict({"conv1": nn.Conv2d(1, 2, 1, bias=False), "bn1": FrozenBatchNorm2d(2)})


def _random_state(model: nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: torch.rand_like(t) for name, t in model.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("bare", [True, False])
def test_own_names(tmp_path: Path, prefix: str, bare: bool) -> None:
    model = _Tiny()
    state = _random_state(model, prefix)
    state[prefix + "roi_heads.mask.feature_extractor.head.layer4.0.conv1.weight"] = state[
        prefix + "roi_heads.box.feature_extractor.head.layer4.0.conv1.weight"
    ]
    save_atomic(
        state if bare else {"model": state, "optimizer": {"lr": 1.0}, "iteration": 5}, tmp_path / "a.pth"
    )
    report = load_weights(model, tmp_path / "a.pth", conv_body="R-50-C4")
    assert not report.missing and not report.unexpected and not report.mismatched
    weight = model.state_dict()["roi_heads.box.cls_score.weight"]
    assert torch.equal(weight, state[prefix + "roi_heads.box.cls_score.weight"])


def test_caffe2_file_lands_in_stem_blocks_and_heads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blobs = {
        "conv1_w": np.full((2, 1, 1, 1), 1, np.float32),
        "res_conv1_bn_s": np.full(2, 2, np.float32),
        "res2_0_branch2a_w": np.full((2, 1, 1, 1), 3, np.float32),
        "res5_0_branch2a_w": np.full((2, 1, 1, 1), 4, np.float32),
        "res5_0_branch2a_w_momentum": np.full((2, 1, 1, 1), 5, np.float32),
        "fc1000_w": np.zeros((3, 3), np.float32),
    }
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(blobs, protocol=2))
    model = _Tiny()
    logging.getLogger("maskrcnn_benchmark").propagate = True
    with caplog.at_level(logging.INFO, logger="maskrcnn_benchmark"):
        report = load_weights(model, path, conv_body="R-50-C4")
    state = model.state_dict()
    for name, value in {
        "backbone.body.stem.conv1.weight": 1,
        "backbone.body.stem.bn1.weight": 2,
        "backbone.body.stem.bn1.running_var": 1,
        "backbone.body.layer1.0.conv1.weight": 3,
        "roi_heads.box.feature_extractor.head.layer4.0.conv1.weight": 4,
        "roi_heads.mask.feature_extractor.head.layer4.0.conv1.weight": 4,
    }.items():
        assert torch.all(state[name] == value), name
    assert report.unexpected == ["fc1000.weight"]
    assert "roi_heads.box.cls_score.weight" in report.missing
    assert "not in the file, keep their initial values" in caplog.text


def test_torchvision_file(tmp_path: Path) -> None:
    state = {
        "conv1.weight": torch.full((2, 1, 1, 1), 2.0),
        "bn1.weight": torch.ones(2),
        "bn1.bias": torch.zeros(2),
        "bn1.running_mean": torch.zeros(2),
        "bn1.running_var": torch.full((2,), 4.0),
        "bn1.num_batches_tracked": torch.tensor(9),
        "layer1.0.bn1.running_var": torch.full((2,), 1e-6),
        "fc.weight": torch.zeros(10, 2),
        "fc.bias": torch.zeros(10),
    }
    save_atomic(state, tmp_path / "resnet.pth")
    model = _Tiny()
    report = load_weights(model, tmp_path / "resnet.pth", conv_body="R-50-FPN")
    assert report.unexpected == []
    resnet = model.backbone["body"]
    x = torch.rand(1, 1, 3, 3)
    reference = nn.BatchNorm2d(2).eval()
    reference.running_var.fill_(4.0)
    with torch.no_grad():
        expected = reference(nn.functional.conv2d(x, state["conv1.weight"]))
        torch.testing.assert_close(resnet["stem"]["bn1"](resnet["stem"]["conv1"](x)), expected)
    torch.testing.assert_close(resnet["layer1"][0]["bn1"].running_var, torch.full((2,), 1.1e-5))


def test_another_class_count(tmp_path: Path) -> None:
    save_atomic({"model": _random_state(_Tiny(classes=5))}, tmp_path / "a.pth")
    model = _Tiny(classes=3)
    before = model.state_dict()["roi_heads.box.cls_score.weight"].clone()
    with pytest.raises(
        CheckpointError,
        match=r"cls_score.weight has shape \(5, 2\).*\(3, 2\).*bias has.*\(5,\).*\(3,\).*ALLOW_MIS",
    ):
        load_weights(model, tmp_path / "a.pth", conv_body="R-50-C4")
    report = load_weights(model, tmp_path / "a.pth", conv_body="R-50-C4", allow_mismatch=True)
    assert [m.model_name.split(".")[-1] for m in report.mismatched] == ["weight", "bias"]
    assert torch.equal(before, model.state_dict()["roi_heads.box.cls_score.weight"])


def test_long_lists_of_other_shapes_are_cut(tmp_path: Path) -> None:
    model = nn.ModuleList([nn.Linear(2, 2) for _ in range(5)])
    save_atomic({n: torch.ones(7, *t.shape) for n, t in model.state_dict().items()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"0.weight .*2.bias .*and 4 more") as error:
        load_weights(model, tmp_path / "a.pth", conv_body="R-50-C4")
    assert "\n" not in str(error.value) and "3.weight" not in str(error.value)
    with pytest.raises(CheckpointError, match="no tensor of the file fits"):
        load_weights(model, tmp_path / "a.pth", conv_body="R-50-C4", allow_mismatch=True)


def test_refused_file_changes_nothing(tmp_path: Path) -> None:
    save_atomic({"model": _random_state(_Tiny(classes=5))}, tmp_path / "a.pth")
    model = _Tiny(classes=3)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_weights(model, tmp_path / "a.pth", conv_body="R-50-C4")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_foreign_names(tmp_path: Path) -> None:
    save_atomic({"encoder.block.w": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match=r"no tensor of the file fits the model; it begins with \['encoder"
    ):
        load_weights(_Tiny(), tmp_path / "a.pth", conv_body="R-50-C4")
