"""All images of a list are looked for before it is used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from maskrcnn_benchmark.data.datasets import image_files
from maskrcnn_benchmark.data.datasets.image_files import check_images, missing_images
from maskrcnn_benchmark.utils.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 80 files in two subfolders, and a cache of its own."""
    monkeypatch.setenv("MRB_CACHE_DIR", str(tmp_path / "cache"))
    for number in range(80):
        path = tmp_path / "img" / f"{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "img"


def _records(count: int) -> list[dict[str, Any]]:
    return [{"id": n, "file_name": f"{n % 2}/{n}.jpg"} for n in range(count)]


@pytest.mark.parametrize("count", [5, 80])
def test_missing_files_and_folders_in_their_place(folder: Path, count: int) -> None:
    """One by one, and by listing folders: the same."""
    assert missing_images(str(folder), _records(count)) == []
    (folder / "0" / "2.jpg").unlink()
    (folder / "1" / "3.jpg").unlink()
    (folder / "1" / "3.jpg").mkdir()
    (folder / "0" / "4.jpg").unlink()
    (folder / "0" / "4.jpg").symlink_to(folder / "0" / "0.jpg")
    assert [r["id"] for r in missing_images(str(folder), _records(count))] == [2, 3]


def test_names_of_lvis(folder: Path) -> None:
    records = [{"id": n, "coco_url": f"http://images.cocodataset.org/{n % 2}/{n}.jpg"} for n in range(80)]
    assert missing_images(str(folder), records) == []
    assert missing_images(str(folder / "0"), records[::2] * 2) == []
    assert len(missing_images(str(folder / "nowhere"), records)) == 80


def test_the_error_names_path_and_count(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = [*_records(80), {"id": 99, "file_name": "gone.jpg"}, {"id": 98, "file_name": "gone.png"}]
    with pytest.raises(DataError) as error:
        check_images(str(folder), records, "ann.json")
    text = str(error.value)
    assert f"image 99 is missing: no file {folder}/gone.jpg; 2 of 82 images of ann.json are not in" in text
    assert "\n" not in text
    check_images(str(folder), records, "ann.json", skip=True)
    assert "they are skipped (DATALOADER.BAD_IMAGE)" in caplog.text
    with pytest.raises(DataError, match="2 of 2 images"):
        check_images(str(folder), records[-2:], "ann.json", skip=True)


def test_a_complete_list_is_remembered_until_a_folder_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "CACHE_FROM", 70)
    listed: list[str] = []
    listing = image_files._file_names
    monkeypatch.setattr(image_files, "_file_names", lambda path: listed.append(path) or listing(path))
    assert missing_images(str(folder), _records(80)) == [] and len(listed) == 2
    assert missing_images(str(folder), _records(80)) == [] and len(listed) == 2
    assert missing_images(str(folder), _records(79)) == [] and len(listed) == 4  # another list
    (folder / "1" / "3.jpg").unlink()
    os.utime(folder / "1", ns=(1, 1))
    assert [r["id"] for r in missing_images(str(folder), _records(80))] == [3]
