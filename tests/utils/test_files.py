"""utils.files: atomic writing, reading, hashes."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import (
    append_jsonl,
    atomic_path,
    make_folder,
    new_array,
    read_json,
    sha256_file,
    sha256_json,
    write_array,
    write_json,
    write_json_list,
    write_text,
)


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half of the new")
        raise RuntimeError("disk full")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "new" / "a.bin"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path / "new") == []


def test_temporary_is_a_neighbour_with_the_same_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.npy") as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".npy" and temporary.name != "a.npy"


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text(tmp_path / "ours", "x")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")]
    assert modes[0] == modes[1]


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": "ä"}
    for indent in (None, 2):
        write_json(tmp_path / "x" / "a.json", value, indent=indent)
        assert read_json(tmp_path / "x" / "a.json") == value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"{\n 1", "not valid JSON.*line 2"),
        (b"\xff\xfe", "not UTF-8"),
        (b"", "not valid"),
    ],
)
def test_bad_json_names_file_and_purpose(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"annotation file .*bad\.json .*{words}") as error:
        read_json(path, "annotation file")
    assert "\n" not in str(error.value)


def test_a_folder_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path)


def test_unserialisable_json_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (5,), (3, 4)])
def test_arrays_read_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    for array in (values, values.astype(np.float16), np.asfortranarray(values), values.T):
        write_array(tmp_path / "a.npy", array)
        read = np.load(tmp_path / "a.npy", allow_pickle=False)
        assert read.dtype == array.dtype and np.array_equal(read, array)


def test_append_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    for i in range(3):
        append_jsonl(path, {"i": i})
    assert [json.loads(line)["i"] for line in path.read_text().splitlines()] == [0, 1, 2]


def test_hashes(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "a") == known
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
    assert sha256_json([1, 2]) != sha256_json([2, 1])


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for write in (make_folder, lambda p: write_text(p / "a", "x"), lambda p: append_jsonl(p / "a", 1)):
        with pytest.raises(DataError, match=r"folder .*file.*run cannot be made: .*choose another") as error:
            write(tmp_path / "file" / "run")
        assert "\n" not in str(error.value)
    assert make_folder(tmp_path / "a" / "b") == make_folder(tmp_path / "a" / "b")


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_a_list_written_piece_by_piece_is_the_same_file(tmp_path: Path, count: int) -> None:
    items = [{"n": i, "text": '"ä\\'} for i in range(count)]
    write_json_list(tmp_path / "a.json", iter(items), at_once=3)
    write_json(tmp_path / "b.json", items)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_an_array_filled_piece_by_piece(tmp_path: Path) -> None:
    with new_array(tmp_path / "a.npy", (3, 4), "float16") as put:
        put(9, np.array([1.0, 2.0]))
        put(0, np.array([[3, 4], [5, 6]]))
    found = np.load(tmp_path / "a.npy")
    assert found.dtype == np.float16
    assert found.tolist() == [[3, 4, 5, 6], [0, 0, 0, 0], [0, 1, 2, 0]]
