"""data.datasets.cityscapes: fine annotations as polygons and as id images, and their conversion."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import mask as mask_utils

from maskrcnn_benchmark.config.catalog import DatasetSpec
from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.cityscapes import (
    LABEL_IDS,
    THING_NAMES,
    VOID_IDS,
    encode_mask,
    label_of,
    load_cityscapes,
    region_rles,
)
from maskrcnn_benchmark.data.datasets.readers import load_annotations
from maskrcnn_benchmark.utils.errors import DataError

SIZE = (96, 64)


@pytest.fixture
def outlines(dataset_trees: ModuleType) -> dict[str, list[Any]]:
    """Two cities: overlapping cars and a group; persons; a street without objects."""
    box = dataset_trees.rectangle
    street = [("road", box(0, 30, 96, 34)), ("out of roi", box(0, 0, 96, 4))]
    return {
        "aachen/aachen_000": [
            *street,
            ("car", box(10, 20, 30, 20)),
            ("car", box(30, 25, 30, 20)),
            ("static", box(70, 40, 10, 10)),
            ("cargroup", box(60, 10, 20, 12)),
            ("person", [(80, 20), (90, 50), (70, 55)]),
        ],
        "bonn/bonn_001": [*street, ("person", box(-5, 30, 20, 20)), ("caravan", box(40, 20, 20, 20))],
        "bonn/bonn_002": street,
    }


@pytest.fixture
def root(tmp_path: Path, dataset_trees: ModuleType, outlines: dict[str, list[Any]]) -> Path:
    """A tree with the split "val"."""
    dataset_trees.make_cityscapes(tmp_path, "val", outlines, SIZE)
    return tmp_path


def _load(root: Path, form: str, **options: Any) -> AnnotationFile:
    return load_cityscapes(str(root / "gtFine" / "val"), form, **options)


def test_label_table() -> None:
    assert len(LABEL_IDS) == 35 and LABEL_IDS["car"] == 26 and LABEL_IDS["bicycle"] == 33
    assert label_of("car") == (26, False) and label_of("cargroup") == (26, True)
    assert label_of("polegroup") == (18, False) and label_of("plane") is None and label_of("group") is None
    assert label_of("license plate") == (-1, False)
    assert {LABEL_IDS[n] for n in ("ego vehicle", "parking", "caravan", "trailer")} <= set(VOID_IDS)


def test_masks_are_those_of_the_id_images(
    root: Path, dataset_trees: ModuleType, outlines: dict[str, list[Any]]
) -> None:
    file = _load(root, "mask")
    assert file.kind == "cityscapes"
    assert [c["name"] for c in file.categories] == list(THING_NAMES)
    assert [image["file_name"] for image in file.images] == [f"{n}_leftImg8bit.png" for n in sorted(outlines)]
    for image in file.images:
        ids = dataset_trees.id_map(outlines[image["file_name"].removesuffix("_leftImg8bit.png")], SIZE)
        expected_ids = sorted(set(ids[(ids >= 24000) & (ids < 29000) | (ids == 26)].tolist()))
        records = file.anns_by_image[image["id"]]
        assert len(records) == len(expected_ids)
        for record, number in zip(records, expected_ids, strict=True):
            mask = mask_utils.decode(record["segmentation"]).astype(bool)
            np.testing.assert_array_equal(mask, ids == number)
            assert record["area"] == mask.sum() and record["iscrowd"] == int(number < 1000)
            assert record["category_id"] == (number if number < 1000 else number // 1000)
            ys, xs = np.nonzero(mask)
            assert record["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        void = mask_utils.decode(image["void"]).astype(bool)
        # a single caravan is no void, although its class is not evaluated
        np.testing.assert_array_equal(void, np.isin(ids, VOID_IDS))


def test_polygons(root: Path, outlines: dict[str, list[Any]]) -> None:
    file, masks = _load(root, "poly"), _load(root, "mask")
    records = file.anns_by_image[1]
    assert [r["category_id"] for r in records] == [26, 26, 26, 24]
    assert [r["iscrowd"] for r in records] == [0, 0, 1, 0]
    assert records[0]["segmentation"] == [[10, 20, 39, 20, 39, 39, 10, 39]]
    assert records[0]["bbox"] == [10, 20, 30, 20]
    # the second car hides a part of the first: polygons do not know
    assert records[0]["area"] > masks.anns_by_image[1][1]["area"]
    # clipped to the image
    assert file.anns_by_image[2][0]["bbox"] == [0, 30, 15, 20]
    for image, other in zip(file.images, masks.images, strict=True):
        assert image == other  # the painted void region is that of the id images


def test_objects_that_do_not_count(root: Path) -> None:
    path = root / "gtFine" / "val" / "bonn" / "bonn_002_gtFine_polygons.json"
    content = json.loads(path.read_text())
    square = [[5, 5], [20, 5], [20, 20], [5, 20]]
    far = [[x + 200, y] for x, y in square]
    content["objects"] += [
        {"label": "car", "polygon": square, "deleted": 1},
        {"label": "license plate", "polygon": square},
        {"label": "bus", "polygon": far},
        {"label": "bus", "polygon": square[:2]},
    ]
    path.write_text(json.dumps(content))
    assert _load(root, "poly").anns_by_image[3] == []
    content["objects"].append({"label": "zeppelin", "polygon": square})
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"bonn_002_gtFine_polygons.json has the unknown label 'zeppelin'"):
        _load(root, "poly")


def test_deleted_is_read_by_its_meaning(root: Path) -> None:
    path = root / "gtFine" / "val" / "bonn" / "bonn_002_gtFine_polygons.json"
    square = [[5, 5], [20, 5], [20, 20], [5, 20]]
    content = json.loads(path.read_text())
    content["objects"] = [
        {"label": "car", "polygon": square, "deleted": value} for value in (0, "0", "false", True, "1")
    ]
    path.write_text(json.dumps(content))
    assert len(_load(root, "poly").anns_by_image[3]) == 3


def test_training_skips_groups_and_images_without_objects(root: Path) -> None:
    cfg = load_config(None, ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.HORIZONTAL_FLIP_PROB_TRAIN", "0"])
    for form in ("poly", "mask"):
        folders = str(root / "gtFine" / "val"), str(root / "leftImg8bit" / "val")
        spec = DatasetSpec("val", f"cityscapes_{form}", *folders)
        dataset = build_dataset(cfg, spec, train=True)
        assert dataset.image_ids == [1, 2] and dataset.has_masks
        sample = dataset[0]
        assert sorted(sample.target.get_field("labels").tolist()) == [1, 3, 3]
        assert sample.target.get_field("masks").mode == form
        assert len(build_dataset(cfg, spec, train=False)) == 3


def test_a_part_of_the_images(tmp_path: Path, dataset_trees: ModuleType) -> None:
    names = {f"city/city_{i:03d}": [] for i in range(45)}
    dataset_trees.make_cityscapes(tmp_path, "val", names, (4, 4))
    spec = DatasetSpec("mini", "cityscapes_mask", str(tmp_path / "gtFine" / "val"), "x", images=10)
    assert [image["file_name"][10:13] for image in load_annotations(spec).images] == [
        f"{i:03d}" for i in range(0, 45, 5)
    ]


def test_missing_and_broken_files(root: Path) -> None:
    with pytest.raises(DataError, match=r"train holds no <city>/\*_gtFine_instanceIds.png; name the folder"):
        load_cityscapes(str(root / "gtFine" / "train"), "mask")
    path = root / "gtFine" / "val" / "bonn" / "bonn_001_gtFine_instanceIds.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"bonn_001_gtFine_instanceIds.png cannot be read"):
        _load(root, "mask")
    Image.new("RGB", SIZE).save(path)
    with pytest.raises(DataError, match="has 3 channels; expected an instance id image"):
        _load(root, "mask")
    polygons = path.with_name("bonn_001_gtFine_polygons.json")
    for text in (
        "{}",
        "[1]",
        '{"imgWidth": 4, "imgHeight": 4, "objects": [{"label": "car", "polygon": [1]}]}',
        '{"imgWidth": 4, "imgHeight": 4, "objects": [{"label": "car", "polygon": [["1", "2"]]}]}',
        '{"imgWidth": 4, "imgHeight": 4, "objects": [{"label": "car", "polygon": [[NaN, 2]]}]}',
        '{"imgWidth": 4, "imgHeight": 4, "objects": [{"label": "car", "polygon": [], "deleted": "maybe"}]}',
    ):
        polygons.write_text(text)
        with pytest.raises(DataError, match=r"bonn_001_gtFine_polygons.json is none of the fine annotations"):
            _load(root, "poly")
    polygons.write_text('{"imgWidth": 100000, "imgHeight": 100000, "objects": []}')
    with pytest.raises(DataError, match="has the size 100000 x 100000, which no image has"):
        _load(root, "poly")
    polygons.write_text("{")
    with pytest.raises(DataError, match="is not valid JSON"):
        _load(root, "poly")


@pytest.mark.parametrize("form", ["mask", "poly"])
def test_converted_files(root: Path, run_tool: Callable[..., None], form: str) -> None:
    out = root / "annotations"
    run_tool("convert_cityscapes", "--gt", root / "gtFine", "--out", out, "--splits", "val", "--form", form)
    path = str(out / "instancesonly_filtered_gtFine_val.json")
    direct = _load(root, form, prefix="val/")
    for kind in ("coco", "cityscapes"):
        spec = DatasetSpec("val", kind, path, str(root / "leftImg8bit"))
        file = load_annotations(spec)
        assert file.kind == kind and file.raw == direct.raw
        dataset = build_dataset(load_config(None), spec, train=False)
        assert dataset[0].target.has_field("masks") and dataset.class_names[3] == "car"


@given(
    arrays.arrays(
        np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)
    )
)
def test_regions_of_any_map(numbers: np.ndarray) -> None:
    rles = region_rles(numbers)
    assert list(rles) == sorted(set(numbers.reshape(-1).tolist()))
    for number, rle in rles.items():
        np.testing.assert_array_equal(mask_utils.decode(rle), numbers == number)
        expected = mask_utils.encode(np.asfortranarray(numbers == number))
        assert rle["counts"].encode() == expected["counts"]
    assert (encode_mask(numbers > 3)) is None
