"""checkpoint.download: weights from the network are whole, encrypted, and compared with what is known."""

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

from maskrcnn_benchmark.checkpoint import download
from maskrcnn_benchmark.checkpoint.download import ALLOW_HTTP, cache_path, fetch
from maskrcnn_benchmark.checkpoint.io import read_checkpoint, save_atomic
from maskrcnn_benchmark.checkpoint.load import load_weights
from maskrcnn_benchmark.utils.errors import CheckpointError


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path, list[str]]]:
    """Address, folder and list of requests of a local web server, which redirects /to/X to X."""
    folder, requests = tmp_path / "www", []
    folder.mkdir()
    monkeypatch.setenv("TORCH_MODEL_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv(ALLOW_HTTP, "1")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, directory=str(folder), **kwargs)  # type: ignore[arg-type, misc]

        def do_GET(self) -> None:
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to/"))
                self.end_headers()
            else:
                super().do_GET()

        def log_message(self, *args: object) -> None:
            requests.append(self.path)

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", folder, requests
    httpd.shutdown()


def test_download_once(server: tuple, tmp_path: Path) -> None:
    url, folder, requests = server
    model = nn.Linear(2, 3)
    save_atomic({"model": model.state_dict()}, folder / "a.pth")
    for _ in range(2):
        load_weights(model, f"{url}/a.pth", conv_body="R-50-C4")
    assert len(requests) == 1 and [p.name for p in (tmp_path / "zoo").iterdir()] == ["a.pth"]


def test_download_checks_the_hash_in_the_name(server: tuple, tmp_path: Path) -> None:
    url, folder, _ = server
    good = f"r-{hashlib.sha256(b'abc').hexdigest()[:8]}.pth"
    for name in (good, "r-0123abcd.pth", "r-50.pth"):
        (folder / name).write_bytes(b"abc")
    assert fetch(f"{url}/{good}").read_bytes() == b"abc"
    assert fetch(f"{url}/r-50.pth").read_bytes() == b"abc"  # too short for a hash
    with pytest.raises(CheckpointError, match=r"hash is not 0123abcd.*put the file at .*zoo.* by hand"):
        fetch(f"{url}/r-0123abcd.pth")
    written = sorted(p.name for p in (tmp_path / "zoo").iterdir())
    assert written == sorted([good, f"{good}.sha256", "r-50.pth", "r-50.pth.sha256"])


def test_download_that_fails(server: tuple, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot download .*404.*by hand"):
        fetch(f"{server[0]}/nothing.pth")


def test_interrupted_download(server: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (server[1] / "a.pth").write_bytes(b"abc")

    def breaks(*_: object) -> bytes:
        raise http.client.IncompleteRead(b"a", 2)

    with monkeypatch.context() as patch:
        patch.setattr(http.client.HTTPResponse, "read", breaks)
        with pytest.raises(CheckpointError, match=r"cannot download .*IncompleteRead.*by hand"):
            fetch(f"{server[0]}/a.pth")
    assert list((tmp_path / "zoo").iterdir()) == []


def test_only_encrypted_addresses(server: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOW_HTTP)
    with pytest.raises(CheckpointError, match="is not encrypted.*https://.*MRB_ALLOW_HTTP=1"):
        fetch(f"{server[0]}/a.pth")
    assert server[2] == [] and not (tmp_path / "zoo").exists()


def test_redirects(server: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder, _ = server
    (folder / "a.pth").write_bytes(b"abc")
    assert fetch(f"{url}/to/{url}/a.pth").read_bytes() == b"abc"
    (tmp_path / "zoo" / "a.pth").unlink()
    for target in ("file:///etc/hostname", "ftp://host/a.pth"):
        with pytest.raises(CheckpointError, match="no address of a web server|not allowed"):
            fetch(f"{url}/to/{target}?/a.pth")
    plain = download._require_encrypted
    monkeypatch.setattr(download, "_require_encrypted", lambda to: None if "/to/" in to else plain(to))
    monkeypatch.delenv(ALLOW_HTTP)
    with pytest.raises(CheckpointError, match="is not encrypted"):
        fetch(f"{url}/to/{url}/a.pth")
    assert not (tmp_path / "zoo" / "a.pth").exists()


def test_files_beyond_the_size_of_weights(
    server: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (server[1] / "a.pth").write_bytes(bytes(3 << 20))
    (server[1] / "b.pth").write_bytes(b"")
    monkeypatch.setattr(download, "_LARGEST", 1 << 20)
    with pytest.raises(CheckpointError, match="it has 3 MiB, and a weight file has at most 1"):
        fetch(f"{server[0]}/a.pth")
    with pytest.raises(CheckpointError, match="empty file"):
        fetch(f"{server[0]}/b.pth")
    assert list((tmp_path / "zoo").iterdir()) == []


def test_what_was_compared_is_said(server: tuple, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url, folder, _ = server
    content = pickle.dumps({"conv1_w": np.ones(2, np.float32)}, protocol=2)
    digest = hashlib.sha256(content).hexdigest()
    caplog.set_level(logging.INFO, "maskrcnn_benchmark")
    logging.getLogger("maskrcnn_benchmark").propagate = True
    for name in (f"R-{digest[:8]}.pkl", "R-50.pkl"):
        (folder / name).write_bytes(content)
        fetch(f"{url}/{name}")
    assert f"has the SHA-256 that its name says ({digest[:8]})" in caplog.text
    assert "R-50.pkl could be compared with" in caplog.text and digest in caplog.text
    caplog.clear()
    path = tmp_path / "zoo" / "R-50.pkl"
    read_checkpoint(path)
    assert caplog.text == ""  # the file beside it says what to expect
    path.write_bytes(pickle.dumps({"conv1_w": np.zeros(2, np.float32)}, protocol=2))
    with pytest.raises(
        CheckpointError, match=r"its SHA-256 begins with .*R-50.pkl.sha256 says .*get it again"
    ):
        read_checkpoint(path)


def test_a_digest_beside_the_file(tmp_path: Path) -> None:
    path, beside = tmp_path / "a.pth", tmp_path / "a.pth.sha256"
    for new in (True, False):
        torch.save({"w": torch.ones(3)}, path, _use_new_zipfile_serialization=new)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        for text in (digest, f"{digest.upper()}  a.pth\n", f"\ufeff{digest} *a.pth\r\n"):
            beside.write_text(text, encoding="utf-8")
            assert (
                list(read_checkpoint(path)["model"]) == list(read_checkpoint(path, "meta")["model"]) == ["w"]
            )
        beside.write_text(f"{'0' * 64}  a.pth\n")
        for device in ("cpu", "meta"):
            with pytest.raises(CheckpointError, match="damaged or another one"):
                read_checkpoint(path, device)
        for content in (b"", b"abc", b"\xff" * 70, digest[:40].encode()):
            beside.write_bytes(content)
            with pytest.raises(CheckpointError, match=r"a.pth.sha256 .*repair or remove it"):
                read_checkpoint(path)


def test_a_digest_in_the_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "maskrcnn_benchmark")
    logging.getLogger("maskrcnn_benchmark").propagate = True
    path = tmp_path / "a.pth"
    torch.save({"w": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    good, other, date = f"r-{digest[:8]}.pth", "r-0a1b2c3d.pth", "r-20240101.pth"
    for name in (good, other, date):
        (tmp_path / name).write_bytes(path.read_bytes())
    read_checkpoint(tmp_path / good)
    assert caplog.text == ""
    with pytest.raises(CheckpointError, match="its name says 0a1b2c3d; get it again, or rename it"):
        read_checkpoint(tmp_path / other)
    read_checkpoint(tmp_path / date)
    assert f"{date} has no checksum to compare with; its SHA-256 is {digest}" in caplog.text
    torch.save({"w": torch.ones(3)}, tmp_path / other)  # has checksums of its own
    assert list(read_checkpoint(tmp_path / other)["model"]) == ["w"]


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
