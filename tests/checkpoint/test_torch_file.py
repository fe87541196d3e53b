"""checkpoint.torch_file: what torch reads is read alike; damaged and unusual files are refused by name."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskrcnn_benchmark.checkpoint.io import check_sums, read_checkpoint
from maskrcnn_benchmark.utils.errors import CheckpointError


def _refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    message = str(error.value)
    assert message.isprintable() and str(path) in message
    return message


def _everything() -> dict[str, Any]:
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    model = OrderedDict(
        plain=base,
        tied=base,
        transposed=torch.randn(4, 6).t(),
        part=torch.randn(5)[2:4],
        expanded=torch.ones(1).expand(7),
        empty=torch.zeros(0, 4),
        scalar=torch.tensor(3),
        flags=torch.tensor([True, False]),
        half=torch.randn(3).half(),
        brain=torch.randn(3).bfloat16(),
        eight=torch.randn(3).to(torch.float8_e4m3fn),
        unsigned=torch.tensor([1, 65535], dtype=torch.uint16),
        parameter=nn.Parameter(torch.randn(2, 3)),
    )
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2))], lr=0.1)
    rest = {
        "sizes": torch.Size([2, 3]),
        "counts": Counter([3, 3, 5]),
        "set": {1, 2},
        "bytes": b"abc",
        "array": bytearray(b"d"),
    }
    return {"model": model, "optimizer": optimizer.state_dict(), "type": torch.float16, **rest}


@pytest.mark.parametrize("new", [True, False])
def test_reads_what_torch_reads(tmp_path: Path, new: bool) -> None:
    path, content = tmp_path / "a.pth", _everything()
    if not new:  # types that torch has no reader for in old files
        del content["model"]["eight"], content["model"]["unsigned"]
    torch.save(content, path, _use_new_zipfile_serialization=new)
    expected, read = torch.load(path, weights_only=True), read_checkpoint(path)
    shapes = read_checkpoint(path, "meta")["model"]
    assert list(read["model"]) == list(expected["model"]) == list(shapes)
    for name, tensor in expected["model"].items():
        ours = read["model"][name]
        assert type(ours) is type(tensor) and ours.requires_grad == tensor.requires_grad, name
        assert (ours.dtype, ours.shape, ours.stride()) == (tensor.dtype, tensor.shape, tensor.stride()), name
        assert torch.equal(ours.contiguous().view(-1).float(), tensor.contiguous().view(-1).float()), name
        assert shapes[name].is_meta and shapes[name].shape == tensor.shape
    assert read["model"]["tied"].data_ptr() == read["model"]["plain"].data_ptr()
    for key in expected.keys() - {"model"}:
        assert read[key] == expected[key] and type(read[key]) is type(expected[key]), key


def test_a_file_of_the_other_byte_order(tmp_path: Path) -> None:
    path, values = tmp_path / "a.pth", torch.arange(5.0)
    torch.save({"w": values}, path)
    _rewrite(path, {"data/0": values.numpy().astype(">f4").tobytes(), "byteorder": b"big"})
    assert torch.equal(read_checkpoint(path)["model"]["w"], values)
    _rewrite(path, {"byteorder": b"middle"})
    assert "byte order" in _refused(path)


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _rewrite(path: Path, changed: dict[str, bytes | None], method: int = zipfile.ZIP_STORED) -> None:
    """Write the archive anew with other members; the checksums are right."""
    members = _members(path)
    prefix = next(iter(members)).partition("/")[0]
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in (members | {f"{prefix}/{n}": c for n, c in changed.items()}).items():
            if content is not None:
                archive.writestr(name, content)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "w.pth"
    torch.save({"model": {"a.weight": torch.arange(6.0), "b": torch.ones(3)}, "iteration": 3}, path)
    return path


def test_an_archive_of_another_program(file: Path) -> None:
    _rewrite(file, {})
    assert torch.equal(read_checkpoint(file)["model"]["b"], torch.ones(3))


def test_sizes_of_64_bits(file: Path) -> None:
    members = _members(file)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(content)
    assert torch.equal(read_checkpoint(file)["model"]["b"], torch.ones(3))
    file.write_bytes(_patched(file.read_bytes(), b"PK\x03\x04", 30 + len("w/data/0") + 8, b"\1"))
    _refused(file)


def test_a_wrong_checksum_names_the_tensor(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[data.index(torch.arange(6.0).numpy().tobytes()) + 9] ^= 0x10
    file.write_bytes(data)
    expected = r"damaged: the checksum of 'w/data/0' \(model\.a\.weight\) is wrong; get it again"
    for device in ("cpu", "meta"):
        with pytest.raises(CheckpointError, match=expected):
            read_checkpoint(file, device)
    with pytest.raises(CheckpointError, match=expected):
        check_sums(file)
    assert read_checkpoint(file, "meta", verify=False)["model"]["a.weight"].shape == (6,)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data/0": b"\0" * 20}, r"storage '0' has 20 bytes, its tensors need 24"),
        ({"data/0": b"\0" * 28}, r"storage '0' has 28 bytes, its tensors need 24"),
        ({"data/1": None}, r"storage '1' is missing"),
        ({"data.pkl": None}, "no data.pkl"),
        ({"constants.pkl": b""}, "TorchScript"),
    ],
)
def test_storages_of_another_length(file: Path, changed: dict, message: str) -> None:
    _rewrite(file, changed)
    assert message in _refused(file)


def test_compressed_members(file: Path) -> None:
    _rewrite(file, {"data.pkl": b"\x80\x02X" + b"\0" * 10**7}, zipfile.ZIP_DEFLATED)
    assert "is compressed, and torch stores members as they are" in _refused(file)


def test_a_member_twice(file: Path) -> None:
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("w/data/0", bytes(24))
    assert "is there twice" in _refused(file)


def _patched(content: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    start = content.rindex(mark) + offset
    return content[:start] + value + content[start + len(value) :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c[:-1],
        lambda c: c + b"\0",
        lambda c: c[:-22],
        lambda c: _patched(c, b"PK\x05\x06", 10, b"\x01\x00"),  # number of members
        lambda c: _patched(c, b"PK\x05\x06", 16, b"\x00\x00\x00\x00"),  # where the list begins
        lambda c: _patched(c, b"PK\x01\x02", 42, b"\x00\x00\x00\x00"),  # a member in the place of another one
        lambda c: _patched(c, b"PK\x01\x02", 24, b"\xff\xff\xff\x7f"),  # its size
        lambda c: _patched(c, b"PK\x01\x02", 20, b"\xff\xff\xff\x7f" * 2),  # both its sizes
        lambda c: _patched(c, b"PK\x03\x04", 22, b"\x01\x00\x00\x00"),  # its size in front of it
        lambda c: _patched(c, b"PK\x03\x04", 28, b"\xff\xff"),  # extra bytes in front of it
    ],
)
def test_a_damaged_list_of_members(file: Path, damage: Callable[[bytes], bytes]) -> None:
    _rewrite(file, {})  # sizes stand in front of the members
    file.write_bytes(damage(file.read_bytes()))
    assert "damaged, cut short or no torch file" in _refused(file)


class _Reference:
    """Pickles as a reference to a storage with made-up properties."""

    def __init__(self, *fields: Any) -> None:
        self.fields = fields


class _Tensor:
    """Pickles as a tensor with made-up properties."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple:
        return torch._utils._rebuild_tensor_v2, (*self.arguments, False, OrderedDict())


def _written(path: Path, content: Any, storages: dict[str, bytes]) -> Path:
    """A torch file with references and tensors of this test."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> Any:
            return value.fields if isinstance(value, _Reference) else None

    target = io.BytesIO()
    Pickler(target, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", target.getvalue())
        for key, data in storages.items():
            archive.writestr(f"a/data/{key}", data)
    return path


FLOATS = ("storage", torch.FloatStorage, "0", "cpu", 6)


def test_the_made_up_tensors_differ_from_a_good_one_in_one_place(tmp_path: Path) -> None:
    tensor = _Tensor(_Reference(*FLOATS), 1, (2, 2), (2, 1))
    path = _written(tmp_path / "a.pth", {"w": tensor}, {"0": struct.pack("<6f", *range(6))})
    assert read_checkpoint(path)["model"]["w"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    "arguments",
    [
        (_Reference(*FLOATS), 3, (2, 2), (2, 1)),  # beyond the end
        (_Reference(*FLOATS), -1, (2, 2), (2, 1)),
        (_Reference(*FLOATS), 0, (2, 2), (100, 1)),
        (_Reference(*FLOATS), 0, (2, 2), (-1, 1)),
        (_Reference(*FLOATS), 0, (2, 2), (1,)),
        (_Reference(*FLOATS), 0, (2**40, 2**40), (0, 0)),  # repeats its storage
        (_Reference(*FLOATS), 0, (2**70,), (1,)),
        (_Reference(*FLOATS), 0, (1.5,), (1,)),
        (_Reference(*FLOATS), 0, [2, (1, 2)], (1, 1)),
        (_Reference(*FLOATS), 0, 6, 1),
        (_Reference(*FLOATS), None, (2,), (1,)),
        (_Reference(*FLOATS), 0, (1,) * 65, (1,) * 65),
        (_Reference("storage", torch.FloatStorage, "0", "cpu", 10**15), 0, (1,), (1,)),
        (_Reference("storage", torch.FloatStorage, "0", "cpu", -6), 0, (1,), (1,)),
        (_Reference("storage", torch.DoubleStorage, "0", "cpu", 6), 0, (1,), (1,)),
        (_Reference("storage", torch.FloatStorage, "1", "cpu", 6), 0, (1,), (1,)),
        (_Reference("storage", torch.FloatStorage, ("0",), "cpu", 6), 0, (1,), (1,)),
        (_Reference("storage", "FloatStorage", "0", "cpu", 6), 0, (1,), (1,)),
        (_Reference("module", torch.FloatStorage, "0", "cpu", 6), 0, (1,), (1,)),
        (_Reference(), 0, (1,), (1,)),
        ("no storage", 0, (1,), (1,)),
    ],
)
def test_unusual_tensors(tmp_path: Path, arguments: tuple) -> None:
    _refused(_written(tmp_path / "a.pth", {"w": _Tensor(*arguments)}, {"0": bytes(24)}))


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (torch.ones(2, dtype=torch.complex64), "'conv.weight' is no tensor of real numbers"),
        (torch.eye(2).to_sparse(), "model.conv.weight is a sparse tensor"),
        (torch.ones(2, device="meta"), "model.conv.weight is a tensor without values"),
        (3, "'conv.weight' is no tensor"),
        ([torch.ones(2)], "'conv.weight' is no tensor"),
        ("a" * 10**5, "'conv.weight' is no tensor"),
    ],
)
def test_entries_that_are_no_dense_real_tensor(tmp_path: Path, value: Any, what: str) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": {"a": torch.ones(1), "conv.weight": value}}, path)
    assert what in _refused(path)


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ({"classes": 3}, "'classes' is no list of class names"),
        ({"classes": ["cat", 7]}, "'classes' is no list of class names"),
        ({"classes": {"cat": 1}}, "'classes' is no list of class names"),
        ({"label_to_category": torch.ones(3)}, "'label_to_category' is no list of category ids"),
        ({"label_to_category": [0, None]}, "'label_to_category' is no list of category ids"),
        ({"classes": ["b", "cat"], "label_to_category": [0]}, "2 class names and 1 category ids"),
    ],
)
def test_class_lists_that_are_none(tmp_path: Path, entries: dict[str, Any], what: str) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": {"a": torch.ones(1)}, **entries}, path)
    assert what in _refused(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantized_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"model": {"q": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}}, path)
    assert "model.q is a quantized tensor" in _refused(path)


@pytest.mark.parametrize("name", [7, "a\nb", "\x1b[31m", "x" * 5000])
def test_names_that_are_none(tmp_path: Path, name: Any) -> None:
    path = tmp_path / "a.pth"
    torch.save({name: torch.ones(1)}, path)
    message = _refused(path)
    assert "is no name of a tensor" in message and len(message) < 500 + len(str(path))


def _legacy_parts(path: Path, content: dict[str, Tensor]) -> tuple[bytes, list[str], bytes]:
    """Pickles in front of the keys, keys, storages of an old torch file."""
    torch.save({"model": content}, path, _use_new_zipfile_serialization=False)
    stream = io.BytesIO(path.read_bytes())
    data = stream.getvalue()
    start = data.rindex(b"\x80\x02]q\x00")
    stream.seek(start)
    keys = pickle.Unpickler(stream).load()
    return data[:start], keys, data[stream.tell() :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda keys, data: ([], b""), "is missing"),
        (lambda keys, data: (keys[:1], data[:32]), "is missing"),
        (lambda keys, data: (keys, data[:-1]), "is cut short"),
        (lambda keys, data: (keys, data + b"\0"), "1 bytes follow"),
        (lambda keys, data: (keys, struct.pack("<q", 5) + data[8:]), "another length"),
        (lambda keys, data: (keys, struct.pack("<q", -1) + data[8:]), "another length"),
        (lambda keys, data: ([*keys, "1"], data + data[:32]), "not referred to"),
        (lambda keys, data: ([*keys, keys[0]], data + data[:32]), "not referred to"),
        (lambda keys, data: (dict.fromkeys(keys), data), "list of storages"),
        (lambda keys, data: ([keys], data), "list of storages"),
    ],
)
def test_old_files_have_exactly_the_storages_of_their_tensors(
    tmp_path: Path, change: Callable, message: str
) -> None:
    path = tmp_path / "a.pth"
    content = {"a.weight": torch.arange(6.0), "b.weight": torch.arange(6.0)}
    front, keys, data = _legacy_parts(path, content)
    path.write_bytes(front + pickle.dumps(keys, 2) + data)
    assert torch.equal(read_checkpoint(path)["model"]["b.weight"], torch.arange(6.0))
    keys, data = change(keys, data)
    path.write_bytes(front + pickle.dumps(keys, 2) + data)
    for device in ("cpu", "meta"):
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(path, device)


def test_old_files_with_long_pickles(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    content = {"model": {"w": torch.ones(3)}, "config": "a: 1\n" * 300000}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    assert read_checkpoint(path)["config"] == content["config"]


@pytest.mark.parametrize("address", ["file:///tmp/a.pth", "ftp://host/a.pth", "s3://bucket/a.pth"])
def test_addresses_that_are_not_read(address: str) -> None:
    with pytest.raises(CheckpointError, match="are not read; give the path of a file"):
        read_checkpoint(address)


def test_folders_and_devices(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/zero")):
        assert "is no file" in _refused(path)
