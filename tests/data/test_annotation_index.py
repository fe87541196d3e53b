"""Large annotation files: the cached index gives what parsing the whole file gives."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn_benchmark.data.datasets import annotation_index
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.utils.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own."""
    monkeypatch.setenv("MRB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "annotations"


@pytest.fixture
def path(raw: dict[str, Any], tmp_path: Path) -> Path:
    """The small file, with spaces, an accent and other keys between."""
    raw["info"] = {"description": "caf\u00e9 [{}]", "annotations": [1]}
    raw["categories"][0]["name"] = "b\u00e9ret"
    target = tmp_path / "ann.json"
    target.write_text(json.dumps(raw, indent=1, ensure_ascii=False), encoding="utf-8")
    return target


def same(one: AnnotationFile, other: AnnotationFile) -> None:
    """Both hold the same content in the same order."""
    assert one.images == other.images and one.categories == other.categories and one.kind == other.kind
    assert dict(one.anns_by_image) == dict(other.anns_by_image)
    for name in one.columns.names():
        np.testing.assert_array_equal(getattr(one.columns, name), getattr(other.columns, name))
    assert {k: list(v) if k == "annotations" else v for k, v in one.raw.items()} == {
        k: list(v) if k == "annotations" else v for k, v in other.raw.items()
    }


def test_first_and_second_opening_equal_the_parsed_file(path: Path, cache: Path) -> None:
    parsed = AnnotationFile.load(path)
    assert not cache.exists()
    same(AnnotationFile.load(path, index_from=0), parsed)
    (folder,) = cache.iterdir()
    before = folder.stat().st_mtime_ns
    same(AnnotationFile.load(path, index_from=0), parsed)
    assert folder.stat().st_mtime_ns == before


def test_outline_has_everything_but_the_segmentation(path: Path) -> None:
    indexed = AnnotationFile.load(path, index_from=0)
    whole = [
        {k: v for k, v in a.items() if k not in ("segmentation", "area")} for a in indexed.raw["annotations"]
    ]
    assert [a | {"iscrowd": a.get("iscrowd", 0)} for a in whole] == list(indexed.outline["annotations"])
    assert indexed.outline["annotations"][1] == list(indexed.outline["annotations"])[1]
    assert indexed.outline["annotations"][-2:] == list(indexed.outline["annotations"])[-2:]
    assert indexed.outline["images"] == indexed.raw["images"]


def test_a_changed_file_is_indexed_again(raw: dict[str, Any], path: Path, cache: Path) -> None:
    AnnotationFile.load(path, index_from=0)
    del raw["annotations"][0]
    path.write_text(json.dumps(raw))
    again = AnnotationFile.load(path, index_from=0)
    assert len(again.columns) == len(raw["annotations"]) and len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("damage", ["header", "array", "short", "version"])
def test_a_damaged_index_is_made_again(path: Path, cache: Path, damage: str) -> None:
    AnnotationFile.load(path, index_from=0)
    (folder,) = cache.iterdir()
    if damage == "header":
        (folder / "header.json").write_text("{")
    elif damage == "array":
        (folder / "boxes.npy").write_bytes(b"nothing")
    elif damage == "short":
        np.save(folder / "ids.npy", np.arange(2))
    else:
        header = json.loads((folder / "header.json").read_text())
        (folder / "header.json").write_text(json.dumps(header | {"version": 0}))
    same(AnnotationFile.load(path, index_from=0), AnnotationFile.load(path))
    assert annotation_index.read_index(path) is not None


def test_a_flipped_bit_in_the_index_changes_nothing(path: Path, cache: Path) -> None:
    parsed = AnnotationFile.load(path)
    AnnotationFile.load(path, index_from=0)
    (folder,) = cache.iterdir()
    generator = np.random.default_rng(0)
    for file in sorted(folder.iterdir()):
        content = bytearray(file.read_bytes())
        for position in generator.integers(0, len(content), 12).tolist():
            damaged = bytearray(content)
            damaged[position] ^= 1 << int(generator.integers(8))
            file.write_bytes(damaged)
            same(AnnotationFile.load(path, index_from=0), parsed)
        assert annotation_index.read_index(path) is not None


def test_a_cache_that_cannot_be_written_costs_a_warning(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MRB_CACHE_DIR", str(tmp_path / "file"))
    same(AnnotationFile.load(path, index_from=0), AnnotationFile.load(path))
    assert "is not cached" in caplog.text and "MRB_CACHE_DIR" in caplog.text


def test_workers_get_the_path_not_the_content(path: Path) -> None:
    indexed = AnnotationFile.load(path, index_from=0)
    packed = pickle.dumps(indexed)
    assert len(packed) < 500
    same(pickle.loads(packed), indexed)
    small = AnnotationFile.load(path)
    same(pickle.loads(pickle.dumps(small)), small)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        '{"annotations": [',
        '{"annotations": [{}]',
        '{"annotations": [1 2]}',
        '{"a": 1,}',
        '{"a" 1}',
    ]
    + ['{"images": [], "annotations": {}, "categories": []}', '{"annotations": []}', "\ufeff{}", "{} x"]
    + ['{"annotations": [' + "[" * 100_000, '{"annotations": [{"id": ' + "1" * 5000 + "}]}", "[" * 100_000],
)
def test_text_that_is_no_annotation_file(text: str, tmp_path: Path) -> None:
    """One line that names the file, as without an index."""
    bad = tmp_path / "bad.json"
    bad.write_text(text, encoding="utf-8")
    for index_from in (0, 10**9):
        with pytest.raises(DataError) as error:
            AnnotationFile.load(bad, index_from=index_from)
        assert "bad.json" in str(error.value) and "\n" not in str(error.value)


def test_a_byte_order_mark_is_skipped(path: Path, tmp_path: Path) -> None:
    marked = tmp_path / "marked.json"
    marked.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    plain = AnnotationFile.load(path)
    for index_from in (0, 0, 10**9):
        same(AnnotationFile.load(marked, index_from=index_from), plain)


def test_of_two_lists_of_one_name_the_last_counts(path: Path) -> None:
    """As for Python's reader, whether the file is indexed or parsed."""
    text = path.read_text().rstrip().removesuffix("}")
    path.write_text(text + ', "annotations": [' + json.dumps(json.loads(text + "}")["annotations"][0]) + "]}")
    parsed = AnnotationFile.load(path)
    assert len(parsed.columns) == 1
    for _ in range(2):
        same(AnnotationFile.load(path, index_from=0), parsed)


def test_a_file_without_annotations(tmp_path: Path) -> None:
    empty = tmp_path / "empty.json"
    empty.write_text(
        '{"images": [{"id": 3, "width": 4, "height": 5, "file_name": "a.jpg"}], '
        '"annotations": [ ], "categories": []}'
    )
    indexed = AnnotationFile.load(empty, index_from=0)
    assert dict(indexed.anns_by_image) == {3: []} and len(indexed.columns) == 0
    empty.write_text(empty.read_text() + "]")
    with pytest.raises(DataError, match="after the end"):
        AnnotationFile.load(empty, index_from=0)


def test_old_indices_of_other_files_stay(path: Path, tmp_path: Path, cache: Path) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(path.read_bytes())
    AnnotationFile.load(path, index_from=0)
    AnnotationFile.load(other, index_from=0)
    os.utime(path, ns=(1, 1))
    AnnotationFile.load(path, index_from=0)
    assert len(list(cache.iterdir())) == 2
