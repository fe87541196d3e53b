"""Annotation files: indexing and the messages for broken ones."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.utils.errors import DataError


def test_index(raw: dict[str, Any]) -> None:
    """Images by id, categories and annotations in file order, an entry for images without objects."""
    annotations = AnnotationFile(raw)
    assert [image["id"] for image in annotations.images] == [11, 12, 13, 14, 15]
    assert annotations.category_ids == [7, 3, 5] and annotations.kind == "coco"
    assert {k: [a["id"] for a in v] for k, v in annotations.anns_by_image.items()} == {
        11: [1, 2],
        12: [3, 4],
        13: [5],
        14: [],
        15: [6, 7],
    }


def test_lvis_is_recognised(raw: dict[str, Any]) -> None:
    """Frequency groups or negative sets make it LVIS."""
    for category in raw["categories"]:
        category["frequency"] = "r"
    assert AnnotationFile(raw).kind == "lvis"


BROKEN = {
    "no list": (lambda raw: raw.pop("images"), 'no list "images"'),
    "no annotations and no categories": (
        lambda raw: [raw.pop("annotations"), raw.pop("categories")],
        'no list "annotations"',
    ),
    "annotations of text": (lambda raw: raw.update(annotations="none"), 'no list "annotations"'),
    "unknown category": (
        lambda raw: raw["annotations"][1].update(category_id=99),
        "annotation 2 has the unknown category 99; add it",
    ),
    "unknown image": (
        lambda raw: raw["annotations"][2].update(image_id=99),
        "annotation 3 belongs to image 99, which has no record",
    ),
    "repeated image": (lambda raw: raw["images"].append(raw["images"][0]), "image id 14 occurs twice"),
    "repeated annotation": (
        lambda raw: raw["annotations"].append(raw["annotations"][0]),
        "annotation id 1 occurs",
    ),
    "no box": (lambda raw: raw["annotations"][0].pop("bbox"), 'annotation 1 has no "bbox"'),
    "nan": (
        lambda raw: raw["annotations"][0].update(bbox=[0, 0, float("nan"), 1]),
        "annotation 1 has the box",
    ),
    "short box": (lambda raw: raw["annotations"][0].update(bbox=[0, 0, 1]), "four finite values"),
    "no size": (lambda raw: raw["images"][0].pop("width"), 'image 14 has no "width"'),
    "zero size": (lambda raw: raw["images"][0].update(height=0), "image 14 has the size 50 x 0; expected"),
    "no name": (lambda raw: raw["images"][0].pop("file_name"), "image 14 has neither"),
    "text id": (lambda raw: raw["images"][1].update(id="11"), 'image number 1 has no integer "id"'),
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_broken_files_are_refused(raw: dict[str, Any], case: str, tmp_path: Path) -> None:
    """The message names the file and the record."""
    change, message = BROKEN[case]
    broken = copy.deepcopy(raw)
    change(broken)
    path = tmp_path / "ann.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(DataError) as error:
        AnnotationFile.load(path)
    assert message in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["absent", None])
@pytest.mark.parametrize("index_from", [0, 10**9])
def test_files_of_test_sets_have_no_annotations(
    raw: dict[str, Any], tmp_path: Path, content: Any, index_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`image_info_*.json` of COCO: images and categories only."""
    monkeypatch.setenv("MRB_CACHE_DIR", str(tmp_path / "cache"))
    raw["annotations"] = content
    raw = {key: value for key, value in raw.items() if value != "absent"}
    path = tmp_path / "image_info_test.json"
    path.write_text(json.dumps(raw))
    for _ in range(2):
        file = AnnotationFile.load(path, index_from=index_from)
        assert file.unlabelled and len(file.columns) == 0 and len(file.images) == 5
        assert list(file.raw["annotations"]) == [] and pickle.loads(pickle.dumps(file)).unlabelled
    assert not AnnotationFile(raw | {"annotations": []}).unlabelled


def test_other_json_and_missing_file(tmp_path: Path) -> None:
    """A list, no JSON, no file."""
    with pytest.raises(DataError, match="JSON object"):
        AnnotationFile([])  # type: ignore[arg-type]
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match="bad.json"):
        AnnotationFile.load(tmp_path / "bad.json")
    with pytest.raises(DataError, match="nowhere.json does not exist"):
        AnnotationFile.load(tmp_path / "nowhere.json")
