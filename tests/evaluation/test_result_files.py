"""Result files read natively give what Python's JSON gives, or an error that names the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from maskrcnn_benchmark.evaluation.detections import Detections
from maskrcnn_benchmark.evaluation.protocols.coco import evaluate_coco
from maskrcnn_benchmark.utils.errors import DataError


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "results.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def same(one: Detections, other: Detections) -> None:
    """Equal to the bit."""
    for name in ("image_ids", "category_ids", "scores", "boxes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.rles is None) == (other.rles is None)
    assert list(one.rles or []) == list(other.rles or [])


def random_rows(seed: int, count: int = 200, *, box: bool = True, mask: bool = True) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        row: dict[str, Any] = {
            "image_id": int(rng.integers(-5, 10**12)),
            "category_id": int(rng.integers(0, 2000)),
            "score": float(rng.random() * 10.0 ** rng.integers(-20, 3)),
        }
        if box:
            row["bbox"] = (rng.random(4) * 1000).tolist()
        if mask:
            flat = np.repeat(rng.random(60) < 0.5, 20).astype(np.uint8)
            flat[:108], flat[108] = 0, 1  # a first run of 108 is written with a backslash
            rle = mask_utils.encode(flat.reshape((40, 30), order="F"))
            row["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
        order = rng.permutation(list(row))
        rows.append({str(key): row[key] for key in order})
    return rows


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(("box", "mask"), [(True, True), (True, False), (False, True)])
def test_equal_to_python(tmp_path: Path, box: bool, mask: bool, indent: int | None) -> None:
    rows = random_rows(3, box=box, mask=mask)
    text = json.dumps(rows, indent=indent)
    assert not mask or "\\\\" in text  # which JSON escapes
    same(Detections.read(write(tmp_path, text)), Detections.from_json(rows))


def test_what_results_may_hold_besides(tmp_path: Path) -> None:
    text = """ [ {"id": 3, "image_id": 7.0, "note": "a \\"}] quoted", "category_id": 1e1,
      "extra": {"x": [1, {"y": "]"}], "z": null}, "score": -1.5E-3, "bbox": [0, 1e2, 3.25, 4] , "area":1}
      ]\n"""
    detections = Detections.read(write(tmp_path, text))
    assert detections.to_json() == [
        {"image_id": 7, "category_id": 10, "bbox": [0.0, 100.0, 3.25, 4.0], "score": -0.0015}
    ]
    assert len(Detections.read(write(tmp_path, " [ ] "))) == 0


@pytest.mark.parametrize(
    "number",
    [
        "1e-400",
        "-1e-400",
        "12345678901234567890.5",
        "0.1",
        "5e-324",
        "2.2250738585072011e-308",
        "9007199254740993",
        "0.30000000000000004",
        "123456789012345678",
        "1.7976931348623157e308",
        "-0",
        "-0.0",
        "1e22",
        "1e23",
        "3E+5",
        "8.41245e-9",
        "9007199254740993.0",
        "179769313486231570000e288",
    ],
)
def test_numbers_are_rounded_as_in_python(tmp_path: Path, number: str) -> None:
    text = f'[{{"image_id": 1, "category_id": 1, "score": {number}, "bbox": [0, 0, 1, {number}]}}]'
    detections = Detections.read(write(tmp_path, text))
    same(detections, Detections.from_json(json.loads(text)))
    assert detections.scores.tobytes() == np.array([json.loads(text)[0]["score"]], np.float64).tobytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "detection 0: expected a list of results at byte 0"),
        ("{}", "expected a list of results"),
        ("[1]", "detection 0: expected an object"),
        ("[{}]", "detection 0: missing image_id"),
        ('[{"image_id": 1}]', "missing category_id"),
        ('[{"image_id": "1"}]', "a whole number as image_id"),
        ('[{"image_id": 1.5}]', "a whole number as image_id"),
        ('[{"image_id": 1, "category_id": 1, "score": 1}]', "missing bbox, segmentation or keypoints"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [1,2,3,4]}]', "missing score"),
        ('[{"bbox": [1, 2, 3]}]', "bbox as a list of 4 numbers"),
        ('[{"segmentation": [[1, 2, 3, 4, 5, 6]]}]', "segmentation as a compressed RLE"),
        ('[{"segmentation": {"size": [1, 2], "counts": [2]}}]', "segmentation as a compressed RLE"),
        ('[{"segmentation": {"size": [1, 2]}}]', "segmentation as a compressed RLE"),
        ('[{"segmentation": {"size": [1, 2], "counts": "\\u0041"}}]', "no other escape"),
        ('[{"a": }]', "a value"),
        ('[{"a" 1}]', "':'"),
        ('[{"image_id": 1, "category_id": 1, "score": 1, "bbox": [1,2,3,4]}] x', "the end of the file"),
        ('[{"image_id": 1, "category_id": 1, "score": NaN, "bbox": [1,2,3,4]}]', "score .finite. at byte 44"),
        ('[{"score": 1e400}]', "score .finite."),
        ('[{"score": true}]', "a number as score"),
        ('[{"score": "1"}]', "a number as score"),
        ('[{"score": null}]', "a number as score"),
        ('[{"bbox": [0, 0, Infinity, 4]}]', "bbox as a list of 4 numbers"),
        ('[{"bbox": null}]', "bbox as a list of 4 numbers"),
        ('[{"image_id": true}]', "a whole number as image_id"),
        ('[{"image_id": null}]', "a whole number as image_id"),
        ('[{"category_id": 123456789012345678901234567890}]', "a whole number as category_id"),
        ('[{"image_id": ' + "9" * 500 + "}]", "a whole number as image_id at byte 14"),
        ('[{"score": 1, "score": 2}]', "every key once in an object at byte 13"),
        ('[{"a": "\\ud800"}]', "lone surrogates"),
        ('[{"a": ' + "[" * 100000, "nesting of at most 128 levels"),
        ('[{"a": ' + '{"b":' * 100000, "nesting of at most 128 levels"),
        ('[{"segmentation": {"size": [0, 4], "counts": "0"}}]', "a positive height and width"),
        ('[{"segmentation": {"size": [3, 4], "counts": "5"}}]', "its runs do not add up"),
        ('[{"segmentation": {"size": [3, 4], "counts": ""}}]', "its runs do not add up"),
        ('[{"segmentation": {"size": [3, 4], "counts": [5]}}]', "segmentation as a compressed RLE"),
        ('[{"segmentation": null}]', "segmentation as a compressed RLE"),
        ('[{"bbox": [0,0,1,1], "segmentation": [[1, 2, 3, 4]]}]', "polygons of 3 points or more"),
        ('[{"bbox": [0,0,1,1], "segmentation": [[1, 2], [3, 4], [5, 6]]}]', "polygons of 3 points or more"),
        ('[{"keypoints": [1, 2, NaN]}]', "keypoints as a list of finite numbers"),
    ],
)
def test_errors_name_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Detections.read(write(tmp_path, text))


def test_some_masks_and_malformed_masks(tmp_path: Path) -> None:
    rows = random_rows(1, 3)
    del rows[1]["segmentation"]
    with pytest.raises(DataError, match="2 of 3 entries have a segmentation"):
        Detections.read(write(tmp_path, json.dumps(rows)))
    rows = random_rows(1, 3)
    del rows[1]["bbox"]
    rows[1]["segmentation"]["counts"] = "5"
    with pytest.raises(DataError, match="detection 1: malformed segmentation .its runs do not add up"):
        Detections.read(write(tmp_path, json.dumps(rows)))
    with pytest.raises(DataError, match=r"cannot be read \(No such file"):
        Detections.read(tmp_path / "absent.json")


def test_a_file_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    text = json.dumps(random_rows(5, 2))
    for length in range(0, len(text), 2):
        with pytest.raises(DataError):
            Detections.read(write(tmp_path, text[:length]))


def test_changed_bytes_never_crash(tmp_path: Path) -> None:
    original = json.dumps(random_rows(6, 3)).encode()
    rng = np.random.default_rng(0)
    for _ in range(1500):
        data = np.frombuffer(original, np.uint8).copy()
        data[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
        try:
            detections = Detections.read(write(tmp_path, data.tobytes()))
            if detections.rles is not None:
                detections.rles.measure()
        except DataError:
            pass


def test_lists_of_python_are_read_by_the_same_rules() -> None:
    row = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [1, 2, 3, 4]}
    numpy_row = {"image_id": np.int64(1), "category_id": np.uint8(1), "score": np.float32(0.5)}
    same(Detections.from_json([row]), Detections.from_json([numpy_row | {"bbox": np.array([1, 2, 3, 4])}]))
    wrong = {"score": float("nan"), "image_id": 10**400, "category_id": True, "bbox": [1, 2, 3]}
    for key, value in wrong.items():
        with pytest.raises(DataError, match=f"detection 1: expected .*{key}[^@]*$"):
            Detections.from_json([row, row | {key: value}])
    with pytest.raises(DataError, match="a value that JSON does not hold"):
        Detections.from_json([row | {"note": object()}])
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(DataError, match="nesting|JSON does not hold"):
        Detections.from_json([row | {"note": nested}])


def test_masks_may_be_polygons_beside_a_box(tmp_path: Path) -> None:
    square = [[2.0, 2.0, 9.0, 2.0, 9.0, 9.5, 2.0, 9.0]]
    row = {"image_id": 5, "category_id": 1, "score": 0.5, "bbox": [2, 2, 7, 7.5]}
    rle = mask_utils.merge(mask_utils.frPyObjects(square, 20, 30))
    encoded = row | {"segmentation": {"size": [20, 30], "counts": rle["counts"].decode()}}
    rows = [row | {"segmentation": square}, encoded, row | {"segmentation": []}]
    detections = Detections.read(write(tmp_path, json.dumps(rows)))
    assert detections.to_json() == rows
    dataset = {
        "images": [{"id": 5, "height": 20, "width": 30}],
        "categories": [{"id": 1}],
        "annotations": [row | {"id": 1, "segmentation": square, "area": 52.0}],
    }
    for order in ([0, 2], [1, 2]):
        result = evaluate_coco(dataset, detections.select(np.array(order)), "segm")
        assert result.mean_precision() == pytest.approx(1)
    with pytest.raises(DataError, match="polygons beside a bbox"):
        Detections.from_json([{k: v for k, v in rows[0].items() if k != "bbox"}])


def test_parts_of_a_large_file_are_joined_in_order(tmp_path: Path) -> None:
    rows = random_rows(7, 9000)
    rows[4000]["note"] = 'a text with }, {"image_id": 1 }, {"score": 2 inside'
    rows[6000]["list"] = [{"score": 1}, {"score": 2}] * 50
    text = json.dumps(rows)
    assert len(text) > 1 << 21
    detections = Detections.read(write(tmp_path, text))
    assert detections.image_ids.tolist() == [row["image_id"] for row in rows]
    assert detections.scores.tolist() == [row["score"] for row in rows]
    assert detections.boxes.tolist() == [row["bbox"] for row in rows]
    counts = [detections.rles[i]["counts"].decode() for i in range(0, 9000, 7)]  # type: ignore[index]
    assert counts == [row["segmentation"]["counts"] for row in rows[::7]]
    broken = text[: len(text) // 2] + "!" + text[len(text) // 2 :]
    with pytest.raises(DataError, match="detection 4|detection 3|malformed"):
        Detections.read(write(tmp_path, broken))
