"""checkpoint.load: models started from files of every published family."""

from __future__ import annotations

import hashlib
import http.client
import http.server
import logging
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from maskrcnn_benchmark.checkpoint.download import cache_path, fetch
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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """Address, folder and list of requests of a local web server."""
    folder, requests = tmp_path / "www", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, directory=str(folder), **kwargs)  # type: ignore[arg-type, misc]

        def log_message(self, *args: object) -> None:
            requests.append(self.path)

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", folder, requests
    httpd.shutdown()


def test_download_once(server: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder, requests = server
    monkeypatch.setenv("TORCH_MODEL_ZOO", str(tmp_path / "zoo"))
    model = _Tiny()
    save_atomic({"model": _random_state(model)}, folder / "a.pth")
    for _ in range(2):
        load_weights(model, f"{url}/a.pth", conv_body="R-50-C4")
    assert len(requests) == 1 and (tmp_path / "zoo" / "a.pth").is_file()


def test_download_checks_the_hash_in_the_name(
    server: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder, _ = server
    monkeypatch.setenv("TORCH_MODEL_ZOO", str(tmp_path / "zoo"))
    good = f"r-{hashlib.sha256(b'abc').hexdigest()[:8]}.pth"
    for name in (good, "r-0123abcd.pth", "r-50.pth"):
        (folder / name).write_bytes(b"abc")
    assert fetch(f"{url}/{good}").read_bytes() == b"abc"
    assert fetch(f"{url}/r-50.pth").read_bytes() == b"abc"  # too short for a hash
    with pytest.raises(CheckpointError, match=r"hash is not 0123abcd.*put the file at .*zoo.* by hand"):
        fetch(f"{url}/r-0123abcd.pth")
    assert sorted(p.name for p in (tmp_path / "zoo").iterdir()) == sorted([good, "r-50.pth"])


def test_download_that_fails(server: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_MODEL_ZOO", str(tmp_path / "zoo"))
    with pytest.raises(CheckpointError, match=r"cannot download .*404.*by hand"):
        fetch(f"{server[0]}/nothing.pth")


def test_interrupted_download(server: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_MODEL_ZOO", str(tmp_path / "zoo"))
    (server[1] / "a.pth").write_bytes(b"abc")

    def breaks(*_: object) -> bytes:
        raise http.client.IncompleteRead(b"a", 2)

    with monkeypatch.context() as patch:
        patch.setattr(http.client.HTTPResponse, "read", breaks)
        with pytest.raises(CheckpointError, match=r"cannot download .*IncompleteRead.*by hand"):
            fetch(f"{server[0]}/a.pth")
    assert list((tmp_path / "zoo").iterdir()) == []


def test_cache_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_MODEL_ZOO", raising=False)
    monkeypatch.setenv("TORCH_HOME", "/cache")
    assert cache_path("https://host/x/R-50.pkl") == Path("/cache/models/R-50.pkl")
    long = cache_path("https://host/detectron/1/a.yaml.x/train%3Aval/model_final.pkl")
    assert long == Path("/cache/models/_detectron_1_a.yaml.x_train%3Aval_model_final.pkl")
    monkeypatch.setenv("TORCH_MODEL_ZOO", "/zoo")
    assert cache_path("https://host/a.pth?x=1") == Path("/zoo/a.pth")
    monkeypatch.delenv("TORCH_MODEL_ZOO")
    monkeypatch.delenv("TORCH_HOME")
    assert cache_path("https://host/a.pth") == Path.home() / ".torch/models/a.pth"
