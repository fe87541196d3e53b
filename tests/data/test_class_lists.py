"""Class lists of data sets: read without the annotations, and joined."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskrcnn_benchmark.config.catalog import DatasetSpec
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.data.build import build_train_dataset
from maskrcnn_benchmark.data.datasets import class_lists
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.class_lists import read_class_list
from maskrcnn_benchmark.data.datasets.detection import ConcatDataset, DetectionDataset
from maskrcnn_benchmark.data.datasets.voc import VOC_CLASSES
from maskrcnn_benchmark.utils.errors import DataError

CATEGORIES = [{"id": 7, "name": "Küche"}, {"id": 3, "name": "dog"}]


def spec_of(path: Path, kind: str = "coco") -> DatasetSpec:
    return DatasetSpec("set", kind, str(path), "images")


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("extra", [{}, {"info": {"text": '"categories": []'}}, {"info": {"categories": [1]}}])
def test_the_list_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ascii_only: bool, extra: dict[str, Any]
) -> None:
    monkeypatch.setattr(class_lists, "_FIRST_BYTES", 20)  # ends inside a record
    path = tmp_path / "a.json"
    content = extra | {"images": [], "annotations": [], "categories": CATEGORIES}
    path.write_text(json.dumps(content, ensure_ascii=ascii_only), encoding="utf-8")
    found = read_class_list(spec_of(path))
    assert (found.ids, found.names, found.source) == ((7, 3), ("Küche", "dog"), str(path))


def test_annotations_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(f'{{"categories": {json.dumps(CATEGORIES)}, "annotations": [oops]}}')
    assert len(read_class_list(spec_of(path))) == 2


@pytest.mark.parametrize("text", ["", "{}", '{"categories": [{"id": "7", "name": "a"}]}', '{"categories": ['])
def test_files_without_a_list_are_refused_as_by_the_reader(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"a\.json"):
        read_class_list(spec_of(path))
    with pytest.raises(DataError, match=r"none\.json"):
        read_class_list(spec_of(tmp_path / "none.json"))


def test_kinds_whose_classes_are_known() -> None:
    assert read_class_list(spec_of(Path("none.txt"), "voc")).names == VOC_CLASSES
    own = DatasetSpec("set", "voc", "none.txt", "images", classes=("b", "a"))
    assert (read_class_list(own).names, read_class_list(own).ids) == (("b", "a"), (1, 2))
    assert read_class_list(spec_of(Path("none"), "cityscapes_mask")).ids == (24, 25, 26, 27, 28, 31, 32, 33)


def reordered(raw: dict[str, Any]) -> dict[str, Any]:
    """The same content with the categories in reverse order."""
    return raw | {"categories": raw["categories"][::-1]}


def renumbered(raw: dict[str, Any]) -> dict[str, Any]:
    """The same content, every category id 100 higher."""
    return raw | {
        "categories": [c | {"id": c["id"] + 100} for c in raw["categories"]],
        "annotations": [a | {"category_id": a["category_id"] + 100} for a in raw["annotations"]],
    }


@pytest.mark.parametrize("change", [dict, reordered, renumbered, lambda raw: reordered(renumbered(raw))])
def test_joined_sets_have_the_labels_of_the_first(
    raw: dict[str, Any], make: Callable[..., DetectionDataset], change: Callable[[Any], Any]
) -> None:
    first, second = make(raw), make(change(raw))
    joined = ConcatDataset([first, second])
    count = len(first)
    assert joined.class_list == first.class_list and len(joined) == 2 * count
    for index in range(count):
        assert joined.get_labels(count + index) == joined.get_labels(index) == first.get_labels(index)
        one, other = joined[index].target, joined[count + index].target
        assert one.get_field("labels").tolist() == other.get_field("labels").tolist()
    assert second.label_to_category[1:] == [c["id"] for c in change(raw)["categories"]]  # unchanged


def test_joined_sets_of_other_classes(raw: dict[str, Any], make: Callable[..., DetectionDataset]) -> None:
    other = raw | {"categories": [raw["categories"][0] | {"name": "kitten"}, *raw["categories"][1:]]}
    with pytest.raises(DataError, match=r"cannot be joined: .* label 1 is 7 'cat' \| 7 'kitten'"):
        ConcatDataset([make(raw), make(other)])


@pytest.mark.parametrize("order", [None, [5, 3, 7], [5, 3]])
def test_training_sets_of_a_config(raw: dict[str, Any], tmp_path: Path, order: list[int] | None) -> None:
    names = []
    for number, content in enumerate((raw, reordered(raw))):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(content))
        names.append(f"coco:{path}@{tmp_path}")
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = tuple(names)
    joined = build_train_dataset(cfg, order)
    assert isinstance(joined, ConcatDataset)
    assert joined.label_to_category[1:] == (order or [7, 3, 5])
    half = len(joined) // 2
    assert [joined.get_labels(i) for i in range(half)] == [joined.get_labels(half + i) for i in range(half)]


def test_relabelled_needs_the_same_categories(raw: dict[str, Any]) -> None:
    data = DetectionDataset(AnnotationFile(raw), ".", transforms=None, train=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not the categories"):
        data.relabelled([7, 3])
