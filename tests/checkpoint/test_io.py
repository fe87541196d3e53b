"""checkpoint.io and caffe2: files that are read, and files that are refused."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.checkpoint.io import read_checkpoint, save_atomic
from maskrcnn_benchmark.checkpoint.pickled_arrays import read_blobs
from maskrcnn_benchmark.utils.errors import CheckpointError, WriteError

STATE = {"module.a.weight": torch.arange(6.0).view(2, 3), "module.a.bias": torch.zeros(2)}


class _Hostile:
    """Runs a command when it is unpickled by an ordinary unpickler."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self._marker}",)


def _refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


def test_native_file_and_bare_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save_atomic({"model": STATE, "iteration": 7, "classes": ["__background__", "cat"]}, path)
    data = read_checkpoint(path)
    assert data["iteration"] == 7 and data["classes"][1] == "cat"
    assert torch.equal(data["model"]["module.a.weight"], STATE["module.a.weight"])
    save_atomic(STATE, path)
    assert list(read_checkpoint(path)) == ["model"]


def test_old_torch_format(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"model": STATE}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_checkpoint(path)["model"]["module.a.weight"], STATE["module.a.weight"])


def test_failing_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pth"
    save_atomic({"model": STATE}, path)

    def fails(obj: Any, target: BinaryIO) -> None:
        target.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(WriteError, match=r"a\.pth cannot be written: No space left.*free some space"):
        save_atomic({"model": {}}, path)
    assert list(read_checkpoint(path)["model"]) == list(STATE)
    assert os.listdir(tmp_path) == ["a.pth"]


@pytest.mark.parametrize("name", ["a.pth", "a.pkl"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    assert "does not exist" in _refused(tmp_path / name)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("new", [True, False])
def test_truncated_file(tmp_path: Path, fraction: float, new: bool) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"model": {"w": torch.rand(500)}}, path, _use_new_zipfile_serialization=new)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(fraction * len(whole))])
    assert "damaged, cut short or no torch file" in _refused(path)


@pytest.mark.parametrize("content", [b"<html>404</html>", b"\x00" * 100, b"PK\x03\x04 no zip"])
def test_foreign_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    _refused(path)


def test_hostile_torch_file(tmp_path: Path) -> None:
    path, marker = tmp_path / "bad.pth", tmp_path / "ran"
    torch.save({"model": STATE, "x": _Hostile(marker)}, path)
    assert "objects other than tensors" in _refused(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content", [[1, 2], {"model": {}}, {"state": {"a": torch.ones(1)}}, {"model": {"a": 3}}, torch.ones(2)]
)
def test_files_without_a_state_dict(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "odd.pth"
    torch.save(content, path)
    _refused(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_caffe2_pickles_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "r50.pkl"
    blobs = {
        "conv1_w": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">f4"),
        "empty": np.zeros((0, 4), np.float32),
        "flags": np.array([True, False]),
        "conv1_w_momentum": np.zeros(3, np.float32),
        "lr": np.float32(0.5),
    }
    path.write_bytes(pickle.dumps({"blobs": blobs, "cfg": "A: 1\n"}, protocol=protocol))
    read = read_checkpoint(path)["model"]
    assert set(read) == {"conv1_w", "fortran", "big_endian", "empty", "flags"}
    for name, tensor in read.items():
        np.testing.assert_array_equal(tensor.numpy(), blobs[name])
    assert np.dtype("f4").isnative  # reading must not alter numpy's own types


def test_python_2_pickle(tmp_path: Path) -> None:
    # As Python 2 writes {"a_w": array([1., 2.], float32)}: text as bytes, raw data as latin1.
    data = struct.pack("<2f", 1.0, 2.0)
    text = (
        b"(dp0\nS'a_w'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntS'b'\ntRp4\n"
        b"(I1\n(I2\ntcnumpy\ndtype\np5\n(S'f4'\nI0\nI1\ntRp6\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS"
        + repr(data.decode("latin1")).encode()
        + b"\ntbs."
    )
    path = tmp_path / "py2.pkl"
    path.write_bytes(text)
    assert read_blobs(path)["a_w"].tolist() == [1.0, 2.0]


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
FLOAT = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR"
PLAIN = b"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"


def _pickled(number: bytes, shape: bytes = b"(I2\nt", data: bytes = b"S'abcdefgh'\n") -> bytes:
    """Pickle of {"a": array} with the given number type, shape and data."""
    return b"(dS'a'\n" + ARRAY + b"(I1\n" + shape + number + b"I00\n" + data + b"tbs."


def test_the_refused_arrays_differ_from_a_good_one_in_one_place(tmp_path: Path) -> None:
    path = tmp_path / "good.pkl"
    path.write_bytes(_pickled(FLOAT + PLAIN))
    assert read_checkpoint(path)["model"]["a"].shape == (2,)


@pytest.mark.parametrize(
    "payload",
    [
        *(_pickled(FLOAT + PLAIN.replace(b"I0\n", b"I%d\n" % flags)) for flags in (1, 2, 63)),
        _pickled(FLOAT + PLAIN.replace(b"NNN", b"N(S'x'\ntN")),  # a number type with fields
        _pickled(FLOAT + PLAIN.replace(b"'<'", b"'!'")),
        _pickled(b"cnumpy\ndtype\n(S'f16'\nI0\nI1\ntR" + PLAIN),
        _pickled(b"S'f4'\n"),
        _pickled(FLOAT + PLAIN, shape=b"(I3\nt"),
        _pickled(FLOAT + PLAIN, data=b"(lI1\naI2\na"),
        b"c__builtin__\nbytes\n(I1000000000\ntR.",
        b"c_codecs\nencode\n(N(dS'__defaults__'\n(ttstb.",  # sets an attribute of a function
    ],
)
def test_refused_states(tmp_path: Path, payload: bytes) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(payload)
    _refused(path)


def test_hostile_pickle(tmp_path: Path) -> None:
    path, marker = tmp_path / "bad.pkl", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"conv1_w": np.ones(2, np.float32), "x": _Hostile(marker)}))
    assert "only numpy arrays are admitted" in _refused(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy\nndarray\n(I1000000000\ntR.",  # the class may be named but not called
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000\ntS'b'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
        b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",
        b"cnumpy\ndtype\n(S'V8'\nI0\nI1\ntR.",
        b"c_codecs\nencode\n(VA\nVzip\ntR.",
        b"cnumpy\ndtype.__class__\n(S'f4'\ntR.",
        b"\x80\x04\x95garbage",
        b"",
        pickle.dumps([1, 2]),
        pickle.dumps({"a": 1}),
        pickle.dumps({"a": np.array([object()])}),
    ],
)
def test_refused_pickles(tmp_path: Path, payload: bytes) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(payload)
    _refused(path)
