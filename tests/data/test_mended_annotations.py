"""Annotations that are unusual but have one meaning: read by a stated rule, and counted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.detection import DetectionDataset
from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.ground_truth import read_ground_truth
from maskrcnn_benchmark.evaluation.protocols.coco import evaluate_coco
from maskrcnn_benchmark.evaluation.protocols.lvis import evaluate_lvis
from maskrcnn_benchmark.utils.errors import DataError

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]


def _content(*changes: dict[str, Any], size: int = 64) -> dict[str, Any]:
    """One image with an object of 20 x 20 pixels for every change; a None value removes the key."""
    record = {
        "image_id": 1,
        "category_id": 1,
        "bbox": [10, 10, 20, 20],
        "area": 400,
        "segmentation": [SQUARE],
    }
    annotations = [
        {k: v for k, v in (record | {"id": number} | change).items() if v != "absent"}
        for number, change in enumerate(changes, start=1)
    ]
    return {
        "images": [{"id": 1, "width": size, "height": size, "file_name": "1.png"}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": annotations,
    }


def _detection(**more: Any) -> Detections:
    return Detections.from_json(
        [{"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [10, 10, 20, 20]} | more]
    )


def _square_mask() -> Detections:
    from pycocotools import mask as mask_utils

    rle = mask_utils.merge(mask_utils.frPyObjects([SQUARE], 64, 64))
    return _detection(segmentation={"size": [64, 64], "counts": rle["counts"].decode()})


@pytest.mark.parametrize(
    ("segmentation", "pixels"),
    [
        ([], 0),
        ([[]], 0),
        ([[26, 31, 50, 31]], 0),
        ([[26, 31]], 0),
        ([[26, 31], [40, 31]], 0),
        ([[], SQUARE], 400),
        ([[26, 31, 50, 31], SQUARE], 400),
        ([SQUARE, [26, 31, 50, 31]], 400),
    ],
)
def test_short_polygons_do_not_count_in_training_and_in_testing(segmentation: list, pixels: int) -> None:
    content = _content({"segmentation": segmentation}, {})
    file = AnnotationFile(content, "ann.json")
    target = DetectionDataset(file, ".", transforms=None, train=True).target(0)  # type: ignore[arg-type]
    assert target.get_field("masks").to_bitmaps().sum((1, 2)).tolist() == [pixels, 400]
    for truth in (content, file.raw):
        # one of two objects is matched: precision 1 up to recall 0.5
        assert evaluate_coco(truth, _square_mask(), "segm").metrics()["AP"] == pytest.approx(0.505, abs=1e-3)
    assert ("fewer than three points" in " ".join(file.mends.lines())) == (segmentation != [])


@pytest.mark.parametrize("area", ["absent", None, math.nan])
@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ("absent", 400.0),
        ([], 400.0),
        ([[10, 10, 30, 10, 30, 30]], 190.0),
        ({"size": [64, 64], "counts": [0, 25, 4071]}, 25.0),
    ],
)
def test_missing_areas_are_those_of_the_mask_else_of_the_box(
    area: Any, segmentation: Any, expected: float
) -> None:
    content = _content({"area": area, "segmentation": segmentation})
    file = AnnotationFile(content, "ann.json")
    assert file.columns.areas.tolist() == [expected] == [file.raw["annotations"][0]["area"]]
    assert "area missing or null, computed from the mask, else from the box: 1 (1)" in file.mends.lines()
    for truth in (content, file.raw):
        assert evaluate_coco(truth, _detection(), "bbox").metrics()["AP"] == pytest.approx(1.0)
        assert read_ground_truth(truth, crowd=True, drop_empty=True).areas.tolist() == [expected]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((value, False) for value in (0, False, 0.0, None, "0", "false", "False", "no", "", "Unspecified")),
        *((value, True) for value in (1, True, 1.0, "1", "true", "TRUE", " yes ")),
    ],
)
@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
def test_flags_are_read_by_meaning_not_by_truth_value(key: str, value: Any, expected: bool) -> None:
    content = _content({key: value})
    file = AnnotationFile(content, "ann.json")
    assert {"iscrowd": file.columns.crowd, "ignore": file.columns.ignore}[key].tolist() == [expected]
    plain = isinstance(value, int)
    assert bool(file.mends) != plain and bool(file.columns.mended[0]) != plain
    assert file.raw["annotations"][0][key] == int(expected)
    evaluate = evaluate_coco if key == "iscrowd" else evaluate_lvis
    for truth in (content, file.raw):
        ap = evaluate(truth, _detection(), "bbox").metrics()["AP"]
        assert ap == pytest.approx(-1 if expected else 1)
    counts = len(DetectionDataset(file, ".", transforms=None, train=True))  # type: ignore[arg-type]
    assert counts == (0 if expected and key == "iscrowd" else 1)


def test_a_null_segmentation_is_a_missing_one() -> None:
    file = AnnotationFile(_content({"segmentation": None}), "ann.json")
    assert not file.columns.masked.any() and "segmentation" not in file.raw["annotations"][0]
    with pytest.raises(DataError, match="annotation 2 has no segmentation although others have"):
        DetectionDataset(
            AnnotationFile(_content({}, {"segmentation": None}), "ann.json"),
            ".",
            transforms=None,  # type: ignore[arg-type]
            train=True,
        )


def test_null_lists_of_lvis(caplog: pytest.LogCaptureFixture) -> None:
    content = _content({})
    content["images"][0] |= {"neg_category_ids": None, "not_exhaustive_category_ids": None}
    content["categories"][0] |= {"frequency": None, "image_count": None}
    file = AnnotationFile(content, "nulls.json")
    assert file.kind == "lvis" and file.images[0]["neg_category_ids"] == []
    assert file.categories == [{"id": 1, "name": "a"}]
    assert evaluate_lvis(file.raw, _detection(), "bbox").metrics()["AP"] == pytest.approx(1)
    assert 'annotation file nulls.json: image with "neg_category_ids" null' in caplog.text


def test_categories_of_one_name_stay_apart(caplog: pytest.LogCaptureFixture) -> None:
    content = _content({}, {"category_id": 2})
    content["categories"].append({"id": 2, "name": "a"})
    file = AnnotationFile(content, "twins.json")
    assert file.category_ids == [1, 2]
    assert "twins.json: category with the name of another, told apart by its id: 2 (1, 2)" in caplog.text


def test_mends_are_logged_once_and_kept_with_the_index(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index gives the same records, columns and counts as the parsed file."""
    monkeypatch.setenv("MRB_CACHE_DIR", str(tmp_path / "cache"))
    changes = [{"iscrowd": "0"}, {"area": None}, {"segmentation": [[1, 2], SQUARE]}, {"area": "absent"}, {}]
    path = tmp_path / "mended.json"
    path.write_text("\ufeff" + json.dumps(_content(*changes)), encoding="utf-8")
    parsed = AnnotationFile.load(path)
    assert caplog.text.count("annotation file") == len(parsed.mends) == 3
    for _ in range(2):
        indexed = AnnotationFile.load(path, index_from=0)
        assert indexed.mends.lines() == parsed.mends.lines()
        assert list(indexed.raw["annotations"]) == parsed.raw["annotations"]
        for name in parsed.columns.names():
            np.testing.assert_array_equal(getattr(indexed.columns, name), getattr(parsed.columns, name))
    assert caplog.text.count("annotation file") == 3
    assert parsed.raw["annotations"][2]["segmentation"] == [SQUARE]
    again = AnnotationFile(parsed.raw, "derived.json")
    assert not again.mends


def test_columns_of_masks(tmp_path: Path) -> None:
    """Codes and extents of all forms; extents are exact for run lengths as text and as a list."""
    runs = [64 * 3 + 5, 7, 57, 9, 64 * 64 - 64 * 3 - 5 - 7 - 57 - 9]
    from pycocotools import mask as mask_utils

    text = mask_utils.frPyObjects({"size": [64, 64], "counts": runs}, 64, 64)["counts"].decode()
    forms = ["absent", [SQUARE, [1, 2, 3, 4.5, 5, 6]], {"size": [64, 64], "counts": text}]
    forms += [{"size": [64, 64], "counts": runs}, []]
    columns = AnnotationFile(_content(*({"segmentation": form} for form in forms)), "ann.json").columns
    assert columns.segmentation.tolist() == [0, 1, 2, 3, 4]
    assert columns.extents[1].tolist() == [1, 2, 30, 30]
    assert columns.extents[2].tolist() == columns.extents[3].tolist() == [3, 5, 5, 14]
    assert np.isnan(columns.extents[[0, 4]]).all()
    assert columns.masked.tolist() == [False, True, True, True, True]
