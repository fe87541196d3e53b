"""Annotations that are wrong in many ways: one line that names file, record and fix."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.detection import DetectionDataset
from maskrcnn_benchmark.data.types import SampleKey
from maskrcnn_benchmark.utils.errors import DataError

Make = Callable[..., DetectionDataset]
SIZE = [40, 50]
WHOLE = [5, 6, 25, 6, 25, 16, 5, 16]

SEGMENTATIONS: dict[str, tuple[Any, str]] = {
    "odd number of coordinates": ([WHOLE[:7]], "a polygon of 7 values; they must be pairs x, y"),
    "not a number": ([[5, 6, math.nan, 6, 25, 16]], "not finite"),
    "infinite": ([[5, 6, math.inf, 6, 25, 16]], "not finite"),
    "far away": ([[2, 3, 1e12, 3, 1e12, 18]], "beyond 1048576 pixels"),
    "text in a polygon": ([["a", 6, 25, 6, 25, 16]], "a polygon is a list of numbers"),
    "text": ("abc", "got str"),
    "number": (5, "got int"),
    "polygons and run lengths": ([WHOLE, {"size": SIZE, "counts": [2000]}], "a polygon is a list of numbers"),
    "null in a polygon": ([[None, 6, 25, 6, 25, 16]], "a polygon is a list of numbers"),
    "no counts": ({"size": SIZE}, "run lengths without counts"),
    "no size": ({"counts": [2000]}, "run lengths without size"),
    "size of text": ({"size": ["a", "b"], "counts": [2000]}, "expected [height, width]"),
    "other size": (
        {"size": [3, 4], "counts": [12]},
        "mask of size (w,h)=(4, 3) in an image of",
    ),
    "huge size": ({"size": [2**31, 2**31], "counts": "abc"}, "in an image of size (50, 40)"),
    "too few": ({"size": SIZE, "counts": [5, 6]}, "run lengths of 11 pixels"),
    "negative": ({"size": SIZE, "counts": [-5, 2005]}, "whole numbers from 0 on"),
    "fractions": ({"size": SIZE, "counts": [5.5, 1994.5]}, "whole numbers from 0 on"),
    "garbage": ({"size": SIZE, "counts": "garbage!!"}, "do not describe a mask"),
    "other letters": ({"size": SIZE, "counts": "\u1234"}, "do not describe a mask"),
    "counts of another kind": ({"size": SIZE, "counts": 7}, "expected text or a list"),
    "text without a run": ({"size": SIZE, "counts": ""}, "do not describe a mask"),
    "text that ends early": ({"size": SIZE, "counts": "04"}, "do not describe a mask"),
    "text that ends in a number": ({"size": SIZE, "counts": "`"}, "do not describe a mask"),
    "size of zero": ({"size": [0, 50], "counts": []}, "a positive height and width"),
    "negative size": ({"size": [-40, -50], "counts": [2000]}, "a positive height and width"),
    "bool as size": ({"size": [True, 50], "counts": [50]}, "expected [height, width]"),
    "points as pairs": ([WHOLE[i : i + 2] for i in range(0, 8, 2)], "a polygon written as 4 points [x, y]"),
    "points as lists": ([[WHOLE[i : i + 2] for i in range(0, 8, 2)]], "whose points are lists [x, y]"),
    "flat list": (WHOLE, "a flat list of values"),
    "box in the place of a polygon": ([[5, 6, 20, 10]], "its box in the place of a polygon"),
    "corners in the place of a polygon": ([[5.4, 6, 25, 16]], "its box in the place of a polygon"),
    "bool in a polygon": ([[True, 6, 25, 6, 25, 16]], "a polygon is a list of numbers"),
    "huge integer in a polygon": ([[10**400, 6, 25, 6, 25, 16]], "not finite or beyond"),
    "huge integer in run lengths": ({"size": SIZE, "counts": [10**400]}, "whole numbers from 0 on"),
}


@pytest.mark.parametrize("case", list(SEGMENTATIONS))
def test_segmentation(make: Make, raw: dict[str, Any], case: str) -> None:
    """Refused when the file is opened, not when the image is trained on."""
    raw["annotations"][0]["segmentation"], message = SEGMENTATIONS[case]
    with pytest.raises(DataError) as error:
        make(raw)
    text = str(error.value)
    assert message in text and "annotation 1 (image 11)" in text and "ann.json" in text and "\n" not in text


@pytest.mark.parametrize("segmentation", [[], [[]], [[1, 2, 3, 4]], [[-50, -30, -22, -3, -22, -18]]])
def test_masks_that_are_empty_or_outside_stay_with_their_box(
    make: Make, raw: dict[str, Any], segmentation: list
) -> None:
    raw["annotations"][0]["segmentation"] = segmentation
    dataset = make(raw)
    target = dataset[dataset.image_ids.index(11)].target
    assert len(target) == len(target.get_field("masks")) == 2
    assert target.get_field("masks").to_bitmaps().shape[0] == 2


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((0, 0, 0, 0), None),
        ((5, 5, -3, -3), None),
        ((5, 5, 1, 30), None),
        ((100, 100, 20, 20), 0),
        ((-1e9, -1e9, 2e9, 2e9), 1),
        ((0, 0, 1e300, 1e300), 1),
        ((45, 35, 20, 20), 1),
    ],
)
def test_boxes_without_area_and_outside(
    make: Make, raw: dict[str, Any], box: tuple, kept: int | None
) -> None:
    """Degenerate ones do not make an image one to train on; others are clipped, those outside dropped."""
    raw["annotations"] = [raw["annotations"][0] | {"bbox": list(box)}]
    dataset = make(raw)
    if kept is None:
        assert len(dataset) == 0
        return
    target = dataset[0].target
    assert len(target) == kept and bool(torch.isfinite(target.bbox).all())
    assert not len(target) or float(target.bbox.min()) >= 0


RECORDS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "bool in a box": (
        lambda raw: raw["annotations"][0].update(bbox=[True, 1, 2, 3]),
        "annotation 1 has the box",
    ),
    "huge integer in a box": (
        lambda raw: raw["annotations"][0].update(bbox=[10**400, 1, 2, 3]),
        "annotation 1 has the box",
    ),
    "huge category id": (
        lambda raw: raw["categories"][0].update(id=2**70),
        "category number 0 has no integer",
    ),
    "huge image id": (lambda raw: raw["annotations"][0].update(image_id=10**400), "must be integers"),
    "area of text": (lambda raw: raw["annotations"][0].update(area="400"), "annotation 1 has the area '400'"),
    "negative area": (lambda raw: raw["annotations"][0].update(area=-4), "annotation 1 has the area -4"),
    "infinite area": (lambda raw: raw["annotations"][0].update(area=math.inf), "has the area inf"),
    "huge area": (lambda raw: raw["annotations"][0].update(area=10**400), "annotation 1 has the area 1000"),
    "crowd of 2": (
        lambda raw: raw["annotations"][0].update(iscrowd=2),
        'annotation 1 has "iscrowd" 2; expected',
    ),
    "crowd of a word": (lambda raw: raw["annotations"][0].update(iscrowd="maybe"), "\"iscrowd\" 'maybe'"),
    "crowd of a list": (lambda raw: raw["annotations"][0].update(iscrowd=[]), '"iscrowd" []'),
    "ignore of a word": (lambda raw: raw["annotations"][0].update(ignore="x"), "\"ignore\" 'x'"),
    "width of a bool": (lambda raw: raw["images"][0].update(width=True), "image 14 has the size True x 40"),
    "width of a fraction": (lambda raw: raw["images"][0].update(width=50.5), "has the size 50.5 x 40"),
    "half a character": (
        lambda raw: raw["images"][0].update(file_name="\ud800.jpg"),
        "image 14 has the name",
    ),
    "NUL in a name": (lambda raw: raw["images"][0].update(file_name="a\0.jpg"), "image 14 has the name"),
    "name of a number in a category": (
        lambda raw: raw["categories"][0].update(name=5),
        "category 7 has the name",
    ),
    "half a character in a category": (
        lambda raw: raw["categories"][0].update(name="\udc80"),
        r"category 7 has the name '\udc80'",
    ),
    "keypoint names of a number": (
        lambda raw: raw["categories"][0].update(keypoints=3),
        'category 7 has "keypoints" 3; expected a list of names',
    ),
    "short void region": (
        lambda raw: raw["images"][0].update(void={"size": SIZE, "counts": "04"}),
        'image 14 has a "void" that cannot be used: its runs do not add up',
    ),
    "void of polygons": (
        lambda raw: raw["images"][0].update(void=[WHOLE]),
        'image 14 has a "void" that cannot be used: expected run lengths',
    ),
    "frequency of another letter": (
        lambda raw: raw["categories"][0].update(frequency=["r"]),
        "category 7 has \"frequency\" ['r']",
    ),
    "negative set of text": (
        lambda raw: raw["images"][0].update(neg_category_ids="3"),
        "image 14 has \"neg_category_ids\" '3'",
    ),
    "negative set of fractions": (
        lambda raw: raw["images"][0].update(not_exhaustive_category_ids=[1.5]),
        'image 14 has "not_exhaustive_category_ids" [1.5]',
    ),
    "text in a box": (
        lambda raw: raw["annotations"][0].update(bbox=["1", 2, 3, 4]),
        "annotation 1 has the box",
    ),
    "image id of text": (lambda raw: raw["annotations"][0].update(image_id="11"), "both must be integers"),
    "category of a fraction": (lambda raw: raw["annotations"][0].update(category_id=1.5), "must be integers"),
    "huge id": (lambda raw: raw["annotations"][0].update(id=2**70), 'has no integer "id"'),
    "category twice": (
        lambda raw: raw["categories"].append(raw["categories"][0]),
        "category id 7 occurs twice",
    ),
    "fraction as id": (lambda raw: raw["images"][0].update(id=14.0), 'image number 0 has no integer "id"'),
    "width of text": (lambda raw: raw["images"][0].update(width="50"), "has the size '50' x 40"),
    "width nan": (lambda raw: raw["images"][0].update(width=math.nan), "has the size nan x 40"),
    "width beyond reason": (lambda raw: raw["images"][0].update(width=2**40), "image 14 has the size"),
    "name of a number": (lambda raw: raw["images"][0].update(file_name=7), "image 14 has the name 7"),
    "image of a number": (lambda raw: raw["images"].append(3), "image number 5 has no integer"),
    "annotation of a list": (lambda raw: raw["annotations"].append([]), "annotation number 7 has no integer"),
}


@pytest.mark.parametrize("case", list(RECORDS))
def test_records(raw: dict[str, Any], case: str) -> None:
    change, message = RECORDS[case]
    broken = copy.deepcopy(raw)
    change(broken)
    with pytest.raises(DataError) as error:
        AnnotationFile(broken, "ann.json")
    assert message in str(error.value) and "ann.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("mode", ["CMYK", "P", "LA", "RGBA", "I;16", "1", "F"])
def test_every_kind_of_image_becomes_rgb(make: Make, raw: dict[str, Any], tmp_path: Path, mode: str) -> None:
    values = np.arange(2000, dtype=np.uint16).reshape(40, 50) * 30
    image = Image.fromarray(values) if mode == "I;16" else Image.new("L", (50, 40), 128).convert(mode)
    name = f"kind.{'tiff' if mode in ('F', 'CMYK') else 'png'}"
    image.save(tmp_path / name)
    raw["images"][1]["file_name"] = name
    sample = make(raw)[0]
    assert sample.image_id == 11 and sample.image.shape[0] == 3 and bool(torch.isfinite(sample.image).all())


def test_orientation_tags_are_not_followed(make: Make, raw: dict[str, Any], tmp_path: Path) -> None:
    """COCO and LVIS boxes belong to the stored pixels; turned sides in a record are an error."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (50, 40)).save(tmp_path / "turned.jpg", exif=exif)
    raw["images"][1]["file_name"] = "turned.jpg"
    assert make(raw)[0].target.size == (50, 40)
    raw["images"][1].update(width=40, height=50)
    with pytest.raises(DataError, match=r"image 11: .*turned.jpg is 50 x 40, its record says 40 x 50"):
        make(raw)[0]


def test_many_objects_in_one_image(make: Make, raw: dict[str, Any]) -> None:
    first = raw["annotations"][0]
    raw["annotations"] = [first | {"id": i, "bbox": [i % 20, i % 15, 10, 10]} for i in range(1, 1501)]
    target = make(raw)[SampleKey(0)].target
    assert len(target) == len(target.get_field("masks")) == 1500


def test_skipped_images_are_counted(make: Make, raw: dict[str, Any], tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "11.jpg").write_bytes((tmp_path / "11.jpg").read_bytes()[:300])
    dataset = make(raw, bad_image="skip")
    sample = dataset[dataset.image_ids.index(11)]
    assert sample.image_id != 11 and sample.replaced and dataset.replaced_count == 1
    assert "image 11 cannot be read" in caplog.text and "1 replaced so far" in caplog.text
