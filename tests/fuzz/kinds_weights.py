"""Damaged weight files of all forms: torch's zip files, its old pickles, Caffe2 pickles."""

from __future__ import annotations

import hashlib
import io
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mutations import flip_bits, mutate_bytes
from runner import SilentDifference
from torch import nn

from maskrcnn_benchmark.checkpoint.io import check_sums, read_checkpoint
from maskrcnn_benchmark.checkpoint.load import load_weights

CONV_BODY = "R-50-C4"


def _tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "conv.bias": torch.randn(4, generator=generator),
        "fc.weight": torch.randn(5, 16, generator=generator),
        "fc.bias": torch.randn(5, generator=generator),
    }


def _model() -> nn.Module:
    return nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3), "fc": nn.Linear(16, 5)})


def _checkpoint() -> dict[str, Any]:
    optimizer = {
        "state": {0: {"momentum_buffer": torch.ones(4)}},
        "param_groups": [{"lr": 0.1, "params": [0]}],
    }
    return {
        "model": _tensors(),
        "optimizer": optimizer,
        "iteration": 3,
        "classes": ["__background__", "cat"],
        "config": "SEED: 1\n",
    }


def _saved(content: Any, *, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _use(path: Path, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Read a file, and load it into a model that its names fit; return what it holds."""
    state = read_checkpoint(path, device)["model"]
    if device == "cpu":
        load_weights(_model(), str(path), conv_body=CONV_BODY)
    return state


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
        for a, b in zip(one.values(), other.values(), strict=True)
    )


def _use_flipped(path: Path, expected: dict[str, torch.Tensor]) -> None:
    """Read a file with flipped bits: refused, or equal."""
    if not _same(_use(path), expected):
        raise SilentDifference("a flipped bit gives other weights")


def _flip_beside_digest(rng: random.Random, path: Path, data: bytes) -> None:
    """Write flipped bits with the SHA-256 of the undamaged file beside them, which is damaged at times."""
    path.write_bytes(flip_bits(rng, data))
    digest = f"{hashlib.sha256(data).hexdigest()}  {path.name}\n".encode()
    if rng.random() < 0.1:
        digest = mutate_bytes(rng, digest)
    path.with_name(f"{path.name}.sha256").write_bytes(digest)


def _must_refuse(path: Path) -> None:
    read_checkpoint(path)
    raise SilentDifference("a flipped bit is accepted although a digest is known")


class ZipWeights:
    """Files of `torch.save`: zip archives of a pickle and storages."""

    name = "weights_zip"

    def prepare(self, folder: Path) -> None:
        """Make a state dict, a checkpoint and a file of mmdetection."""
        contents = [_tensors(), _checkpoint(), {"state_dict": _tensors(), "meta": {"CLASSES": ("cat",)}}]
        self._files = [_saved(content, zipped=True) for content in contents]
        path = folder / "x.pth"
        for content in self._files:
            path.write_bytes(content)
            check_sums(path)
            assert _same(_use(path), _tensors())

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        """Flip bits, damage bytes, or write the archive again with another pickle, sizes or names."""
        data, path = rng.choice(self._files), folder / "x.pth"
        kind = rng.randrange(4)
        if kind == 0:
            path.write_bytes(flip_bits(rng, data))
            return lambda: _use_flipped(path, _tensors())
        if kind == 1:
            path.write_bytes(mutate_bytes(rng, data))
        elif kind == 2:
            path.write_bytes(_rewritten(rng, data))
        else:
            path.write_bytes(_wrong_directory(rng, data))
        device = rng.choice(["cpu", "cpu", "meta"])
        return lambda: _use(path, device)


def _rewritten(rng: random.Random, data: bytes) -> bytes:
    """The archive with right checksums and a changed member."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
        members = {name: old.read(name) for name in old.namelist()}
        change, names = rng.randrange(7), list(members)
        name = rng.choice(names)
        top = names[0].partition("/")[0]
        if change <= 2:
            name = f"{top}/data.pkl"
            members[name] = mutate_pickle(rng, members[name])
        elif change == 3:
            members[name] = mutate_bytes(rng, members[name])
        elif change == 4:
            del members[name]
        elif change == 5:
            members[name] = members[name][: rng.randrange(len(members[name]) + 1)]
        else:
            members[rng.choice(["../x", "/x", f"{top}/data/99", "\x1b[31m", "a" * 5000])] = members[name]
        compressed = rng.random() < 0.1
        for member, content in members.items():
            if compressed and rng.random() < 0.2:
                content = bytes(rng.choice([10**6, 2 * 10**8]))
            new.writestr(member, content, zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED)
    return result.getvalue()


def _wrong_directory(rng: random.Random, data: bytes) -> bytes:
    """The archive with a changed number in the central directory or a local header."""
    result = bytearray(data)
    signature = rng.choice([b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"])
    places = [at for at in range(len(data) - 3) if data[at : at + 4] == signature] or [0]
    at, width = rng.choice(places) + rng.randrange(4, 46), rng.choice([2, 4])
    number = rng.choice([0, 1, 8, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFFE, 10**9, len(data)])
    packed = struct.pack("<Q", number)[:width]
    result[at : at + width] = packed
    return bytes(result)


class LegacyWeights:
    """Files that torch wrote before 1.6: a row of pickles with storages behind them, without checksums."""

    name = "weights_legacy"

    def prepare(self, folder: Path) -> None:
        """Make a state dict and a checkpoint."""
        self._files = [_saved(content, zipped=False) for content in (_tensors(), _checkpoint())]
        path = folder / "x.pth"
        for content in self._files:
            path.write_bytes(content)
            assert _same(_use(path), _tensors())

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        """Damage bytes, mostly of the pickles, cut the storages, or replace a pickle."""
        data, path = rng.choice(self._files), folder / "x.pth"
        kind = rng.randrange(5)
        if kind == 4:
            _flip_beside_digest(rng, path, data)
            return lambda: _use_flipped(path, _tensors())
        if kind == 0:
            data = data[: rng.randrange(len(data))]
        elif kind == 1:
            data = mutate_bytes(rng, data)
        elif kind == 2:
            head = data.index(b"q\x00") if b"q\x00" in data else 100
            data = mutate_pickle(rng, data[: head + 600]) + data[head + 600 :]
        else:
            data = odd_pickle(rng) if rng.random() < 0.5 else data[:19] + odd_pickle(rng)
        path.write_bytes(data)
        return lambda: _use(path)


class Pickles:
    """Caffe2 and Detectron files: pickled dicts of numpy arrays."""

    name = "pickles"

    def prepare(self, folder: Path) -> None:
        """Make files in all protocols."""
        blobs = {
            "conv1_w": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
            "conv1_b": np.zeros(2, np.float64),
            "pred_w": np.asfortranarray(np.ones((3, 4), np.float16)),
            "lr": 0.1,
            "names": ["a", "b"],
        }
        self._files = [
            pickle.dumps(content, protocol=protocol)
            for protocol in range(6)
            for content in (blobs, {"blobs": blobs, "cfg": "x"})
        ]
        path = folder / "x.pkl"
        for content in self._files:
            path.write_bytes(content)
            assert len(read_checkpoint(path)["model"]) == 3

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        """Damage a file, or write one of odd opcodes."""
        path = folder / "x.pkl"
        kind = rng.randrange(4)
        if kind == 3:
            _flip_beside_digest(rng, path, rng.choice(self._files))
            return lambda: _must_refuse(path)
        if kind == 0:
            path.write_bytes(mutate_bytes(rng, rng.choice(self._files)))
        elif kind == 1:
            path.write_bytes(mutate_pickle(rng, rng.choice(self._files)))
        else:
            path.write_bytes(odd_pickle(rng))
        return lambda: read_checkpoint(path)


_NAMES = [
    (b"os", b"system"), (b"builtins", b"eval"), (b"builtins", b"getattr"), (b"builtins", b"bytearray"),
    (b"builtins", b"complex"), (b"builtins", b"set"), (b"collections", b"OrderedDict"),
    (b"torch", b"FloatStorage"),
    (b"torch._utils", b"_rebuild_tensor_v2"), (b"torch._utils", b"_rebuild_parameter"), (b"torch", b"Size"),
    (b"torch._utils", b"_rebuild_meta_tensor_no_storage"), (b"torch._utils", b"_rebuild_sparse_tensor"),
    (b"torch._utils", b"_rebuild_qtensor"), (b"numpy.core.multiarray", b"_reconstruct"),
    (b"numpy", b"ndarray"),
    (b"numpy", b"dtype"), (b"numpy.core.multiarray", b"scalar"), (b"_codecs", b"encode"),
    (b"torch", b"device"),
    (b"torch.serialization", b"_get_layout"), (b"torch", b"float32"),
    (b"torch._tensor", b"_rebuild_from_type_v2"),
]  # fmt: skip
_ATOMS = [
    b"N", b"\x88", b"\x89", b"K\x01", b"M\xff\xff", b"J\xff\xff\xff\xff", b"I" + b"9" * 300 + b"\n", b"L1L\n",
    b"]",
    b"}", b")", b"\x8f", b"G\x7f\xf0\x00\x00\x00\x00\x00\x00", b"X\x01\x00\x00\x00a", b"U\x02ab",
    b"C\x04\x00\x00\x80?",
    b"\x8a\x09" + b"\xff" * 9, b"\x8b\xff\xff\xff\x7f", b"X\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f",
    b"V\\ud800\n",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"(", b"\x96\x04\x00\x00\x00\x00\x00\x00\x00abcd", b"F1e999\n",
]  # fmt: skip
_ACTIONS = [
    b"R", b"b", b"\x81", b"\x92", b"o", b"Q", b"0", b"1", b"2", b"t", b"\x85", b"\x86", b"\x87", b"a", b"e",
    b"s", b"u",
    b"d", b"l", b"q\x00", b"h\x00", b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\x7f", b"\x94", b"p0\n", b"g0\n",
    b"\x90", b"\x91",
    b"\x93", b"\x97", b"\x98", b"\x82\x01", b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"P1\n", b"i", b".",
]  # fmt: skip


def odd_pickle(rng: random.Random) -> bytes:
    """A pickle of random opcodes, or one that is deep, shares its parts again and again, or is large."""
    kind = rng.randrange(5)
    depth = rng.choice([10, 500, 5000, 200_000])
    inner = rng.choice([b"}", b"X\x01\x00\x00\x00a", b"K\x01"])
    if kind == 0:  # as deep as it is long: lists, tuples, dicts
        wrap = rng.choice([(b"]", b"a"), (b"(", b"t"), (b"", b"\x85"), (b"}X\x01\x00\x00\x00a", b"s")])
        return b"\x80\x02" + wrap[0] * depth + inner + wrap[1] * depth + b"."
    if kind == 1:  # few bytes that stand for 2**n values
        steps = rng.choice([5, 30, 200])
        doubled = b"".join(
            b"h%c" % (i % 250) + b"h%c" % (i % 250) + b"\x86q%c" % ((i + 1) % 250) + b"0"
            for i in range(steps)
        )
        return (
            b"\x80\x02}"
            + b"X\x01\x00\x00\x00aq\x00"
            + b"0"
            + doubled
            + b"X\x01\x00\x00\x00bh%c" % (steps % 250)
            + b"s."
        )
    if kind == 2:
        return pickle.dumps(_odd_tree(rng), protocol=rng.randrange(6))
    parts = [b"\x80\x02"]
    for _ in range(rng.choice([3, 10, 40])):
        draw = rng.random()
        if draw < 0.2:
            parts.append(b"c%s\n%s\n" % rng.choice(_NAMES))
        else:
            parts.append(rng.choice(_ATOMS if draw < 0.6 else _ACTIONS))
    return b"".join(parts) + b"."


def _odd_tree(rng: random.Random) -> Any:
    """Plain values and arrays where weights are expected."""
    value = rng.choice([
        None, True, 1j, float("nan"), 10**4000, "x" * 10**6, b"x" * 10**6, (), frozenset({1}), bytearray(9),
        np.float64(1), np.array(["a", "b"]), np.zeros((0, 3)), np.array(5), np.zeros(2, np.complex64),
        np.zeros(2, "datetime64[s]"), np.array([None]), np.zeros(3, [("a", "i4")]), np.ma.array([1]),
        np.zeros(1, "V8"),
    ])  # fmt: skip
    return rng.choice(
        [value, [value], {"a": value}, {1: np.ones(2)}, {("t",): np.ones(1), "b": value}, {"blobs": value}]
    )


def mutate_pickle(rng: random.Random, data: bytes) -> bytes:
    """A pickle with pieces of other opcodes put in, moved or taken out."""
    result = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(result) + 1)
        change = rng.randrange(5)
        if change == 0:
            result[at:at] = rng.choice(_ATOMS)
        elif change == 1:
            result[at:at] = rng.choice(_ACTIONS)
        elif change == 2:
            result[at:at] = b"c%s\n%s\n" % rng.choice(_NAMES)
        elif change == 3:
            del result[at : at + rng.choice([1, 2, 10])]
        else:
            result[-1:-1] = odd_pickle(rng)[2:-1]
    return bytes(result)
