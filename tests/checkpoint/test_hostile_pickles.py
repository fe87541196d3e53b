"""checkpoint.pickle_machine: pickles that are small and deep, wide, shared or endless are refused at once."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn_benchmark.checkpoint import pickle_machine
from maskrcnn_benchmark.checkpoint.content import walk
from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.checkpoint.pickle_machine import ForeignNameError, Machine, PickleError, short
from maskrcnn_benchmark.utils.errors import CheckpointError


def _nothing(module: str, name: str) -> object:
    raise ForeignNameError(f"{module}.{name}")


def _refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    message = str(error.value)
    assert message.isprintable() and len(message) < 600 + len(str(path)) and str(path) in message
    return message


def _doubled(times: int) -> bytes:
    """A list whose items are twice the list before: 2 ** times values in a few bytes."""
    return b"]q\x00" + b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(times))


DEEP = b"\x85" * 200_000
HOSTILE = {
    "many tuples as a key": b"\x80\x02}N" + DEEP + b"Ns.",
    "many tuples": b"\x80\x02N" + DEEP + b".",
    "many lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "many tuples as a member": b"\x80\x02\x8fN" + DEEP[:1000] + b"(h\x00\x90.",
    "a key that shares": b"\x80\x02}" + _doubled(40) + b"Ns.",
    "a value that shares": b"\x80\x02}X\x01\x00\x00\x00a" + _doubled(40) + b"s.",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "an integer of a gigabyte": b"\x80\x02\x8b\xff\xff\xff\x3f" + b"\x01" * 100 + b".",
    "an integer of 2000 bytes": b"\x80\x02\x8b\xd0\x07\x00\x00" + b"\x01" * 2000 + b".",
    "digits without end": b"I" + b"9" * 10**6 + b"\n.",
    "a text of four gigabytes": b"\x80\x02X\xff\xff\xff\xff" + b"a" * 100 + b".",
    "bytes of 2 ** 63": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f" + b".",
    "marks alone": b"\x80\x02" + b"(" * 10**5 + b".",
    "an empty stack": b"\x80\x02.",
    "a memo that is empty": b"\x80\x02h\x07.",
    "an odd dict": b"\x80\x02}(X\x01\x00\x00\x00aNNu.",
    "a persistent id": b"\x80\x02NQ.",
    "text as a function": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "an extension": b"\x80\x02\x82\x01.",
    "an instance": b"(i__main__\nA\n.",
    "a name without end": b"c" + b"a" * 10**5 + b"\nb\n.",
    "a state of a list": b"\x80\x02]Nb.",
    "a named argument": b"\x80\x04ccollections\nOrderedDict\n)}X\x01\x00\x00\x00aNs\x92.",
    "lone surrogates as a name": b"\x80\x02}X\x03\x00\x00\x00\xed\xa0\x80Ns.",
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("kind", ["pkl", "zip", "legacy"])
def test_refused_in_every_kind_of_file(tmp_path: Path, what: str, kind: str) -> None:
    path = tmp_path / ("a.pkl" if kind == "pkl" else "a.pth")
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", HOSTILE[what])
            archive.writestr("archive/version", b"3\n")
    elif kind == "pkl":
        path.write_bytes(HOSTILE[what])
    else:
        torch.save({}, path, _use_new_zipfile_serialization=False)
        empty, end = path.read_bytes(), pickle.dumps([], 2)
        first = (
            empty.rindex(b"\x80\x02}q\x00.") if b"\x80\x02}q\x00." in empty else empty.rindex(b"\x80\x02}")
        )
        path.write_bytes(empty[:first] + HOSTILE[what] + end)
    _refused(path)


def test_more_operations_and_calls_than_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_machine, "MAX_OPERATIONS", 1000)
    with pytest.raises(PickleError, match="more than 1000 operations"):
        Machine(b"N0" * 600 + b"N.", _nothing).load()
    monkeypatch.setattr(pickle_machine, "MAX_CALLS", 10)
    calls = b"ccollections\nOrderedDict\n)R0" * 11 + b"N."
    with pytest.raises(PickleError, match="more than 10 objects"):
        Machine(calls, lambda module, name: pickle_machine.Name(name, dict)).load()


def test_memory_of_copies_is_bounded(tmp_path: Path) -> None:
    text = b"X" + (10**5).to_bytes(4, "little") + b"a" * 10**5
    encode = b"c_codecs\nencode\nq\x01" + text + b"X\x06\x00\x00\x00latin1\x86q\x020"
    payload = b"\x80\x02(" + encode + b"h\x01h\x02R" * 20000 + b"l."
    for name in ("a.pkl", "a.pth"):
        path = tmp_path / name
        if name == "a.pkl":
            path.write_bytes(payload)
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", payload)
        assert "copies its content many times" in _refused(path)


def test_one_array_under_many_names_is_copied_once(tmp_path: Path) -> None:
    array, path = np.arange(1000.0), tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({f"n{i}": array for i in range(1000)}, protocol=2))
    model = read_checkpoint(path)["model"]
    assert len(model) == 1000 and len({tensor.data_ptr() for tensor in model.values()}) == 1
    assert torch.equal(model["n7"], torch.arange(1000.0, dtype=torch.float64))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_ordinary_values_are_those_of_pickle(protocol: int) -> None:
    value = {
        "numbers": [0, -1, 255, 65536, -(2**31), 2**40, -(2**70), 1.5, -0.0, 1e300, True, False, None],
        "texts": ("", "a" * 300, "\u00e9\n\\ \u20ac", "\U0001f40d"),
        "nested": {1: [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)], -2: {}},
    }
    value["same"] = value["nested"]
    read = Machine(pickle.dumps(value, protocol=protocol), _nothing).load()
    assert read == value and read["same"] is read["nested"]


def test_names_of_leaves() -> None:
    names: dict[str, object] = {}
    shared = [1, {"b": 2}]
    walk({"a": shared, "c\n": (3, shared), 7: []}, lambda leaf, path: names.update({path(): leaf}))
    assert names == {"a.0": 1, "a.1.b": 2, "c\\n.0": 3}


def test_foreign_values_are_shortened() -> None:
    class Endless:
        def __repr__(self) -> str:
            raise AssertionError

    assert short("a" * 10**6) == repr("a" * 60) + "..."
    assert short(10**5000) == "a value of type int" and short(7) == "7"
    assert short(Endless()) == "a value of type Endless" and short((1,)) == "a value of type tuple"
