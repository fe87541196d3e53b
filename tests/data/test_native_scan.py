"""The native scan of annotation files: ordinary records as the rule reads them, others left to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_benchmark.data.datasets.annotation_index import FileRecords, MappedFile, scan
from maskrcnn_benchmark.data.datasets.annotations import read_truth
from maskrcnn_benchmark.data.records.annotation import read_annotation
from maskrcnn_benchmark.data.records.columns import DTYPES, RLE_LIST, RLE_TEXT
from maskrcnn_benchmark.data.records.mends import Mends
from maskrcnn_benchmark.utils.errors import DataError

number = st.one_of(
    st.integers(-3, 700),
    st.floats(-100, 1000),
    st.sampled_from([0.1, 1e-320, 123456789.123456789, 2**53 + 1, 1e22, 1e308, -0.0]),
)
odd = st.sampled_from(
    [
        None,
        True,
        "0",
        "false",
        10**30,
        -(2**63),
        2**63,
        float("nan"),
        float("inf"),
        {},
        [],
        [[]],
        "\ud800",
        0.5,
    ]
)
polygon = st.lists(st.floats(-10, 700), min_size=3, max_size=6).map(lambda values: values + values)
shape = st.one_of(
    st.lists(polygon, min_size=1, max_size=3),
    st.just([]),
    st.just({"size": [3, 4], "counts": "264"}),
    st.just({"counts": [2, 6, 4], "size": [3, 4]}),
    st.just({"size": [30, 40], "counts": "\\\\3l0"}),
    odd,
    st.just([[1, 2, 3, 4]]),
    st.just([[1, 2], [3, 4], [5, 6]]),
    st.just([[1, 2, 3, 4, 5, 6, 7]]),
    st.just([[1, 2, 3, 4, 5, 2**21]]),
)


def usually(ordinary: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(*[ordinary] * 12, odd)


record = st.fixed_dictionaries(
    {
        "id": usually(st.integers(1, 10**12)),
        "image_id": usually(st.integers(-3, 9)),
        "category_id": usually(st.integers(1, 9)),
        "bbox": usually(st.lists(number, min_size=4, max_size=4)),
    },
    optional={
        "area": usually(st.one_of(st.integers(0, 99), st.floats(0, 1e6))),
        "iscrowd": usually(st.sampled_from([0, 1, False, True])),
        "ignore": usually(st.sampled_from([0, 1, False, True])),
        "segmentation": shape,
        "keypoints": usually(st.lists(st.integers(0, 2), max_size=4).map(lambda values: values * 3)),
        "caption": st.one_of(st.text(max_size=5), st.just({"a": [1, {"id": 3}]})),
    },
)


def content(records: list[Any], **more: Any) -> dict[str, Any]:
    return {"annotations": records} | more


def scanned(folder: Path, text: str | bytes) -> tuple[Any, ...]:
    path = folder / "annotations.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return scan(MappedFile(str(path)), "annotation file x.json")


@settings(max_examples=300, deadline=None)
@given(st.lists(record, max_size=5), st.sampled_from([None, 1]))
def test_columns_are_those_of_the_rule(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], indent: int | None
) -> None:
    """What the scan calls ordinary, the rule reads to the same values and without a mend."""
    rows, refused, mends = [], None, Mends()
    for index, one in enumerate(records):
        try:
            rows.append(read_annotation(json.loads(json.dumps(one)), index, "annotation file x.json", mends))
        except DataError as error:
            refused = refused or str(error)
    folder = tmp_path_factory.mktemp("scan")
    try:
        _, starts, ends, builder = scanned(folder, json.dumps(content(records), indent=indent))
    except DataError as error:
        assert str(error) == refused
        return
    assert refused is None
    arrays = builder._arrays()
    for index, row in enumerate(rows):
        for name, value in row._asdict().items():
            ours = arrays[name][index]
            runs = arrays["segmentation"][index] in (RLE_TEXT, RLE_LIST)
            if not (name == "extents" and runs) and not (name == "mended" and np.isnan(row.areas)):
                np.testing.assert_array_equal(ours, np.array(value, DTYPES[name][0]), err_msg=name)
    assert builder.mends.stored() == mends.stored()
    found = FileRecords(MappedFile(str(folder / "annotations.json")), starts, ends)
    assert json.dumps(list(found)) == json.dumps(records)


@pytest.mark.parametrize("threads_of", [200_000])
def test_a_large_file_is_read_in_parts(tmp_path: Path, threads_of: int) -> None:
    """Parts are cut between records; a cut inside a text or a nested list changes nothing."""
    rng = np.random.default_rng(0)
    records: list[dict[str, Any]] = []
    while len(json.dumps(records[-1:])) * len(records) < 12 * threads_of:
        one = {"id": len(records), "image_id": 1, "category_id": 1, "bbox": rng.random(4).tolist()}
        if len(records) % 3 == 0:
            one |= {
                "area": 1,
                "note": 'x}, {"id": 5, "image_id": 3}, {"',
                "parts": [{"id": 1}, {"id": 2}] * 9,
            }
        records.append(one)
    sections, starts, _, builder = scanned(tmp_path, json.dumps(content(records, info={"year": 1}, é=[])))
    assert list(sections) == ["annotations", "info", "é"] and len(starts) == len(records)
    assert builder._arrays()["ids"].tolist() == list(range(len(records)))
    assert builder._arrays()["boxes"].tolist() == [one["bbox"] for one in records]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n ", "an object in braces in line 2, column 2"),
        ("[]", "an object in braces"),
        ('{"annotations": [{}, ]}', "a key in quotes|a value"),
        ('{"a": 1,\n "b" 2}', "':' in line 2, column 6"),
        ('{"a": 01}', "a value in line 1, column 7"),
        ('{"a": 1.}', "a digit behind the decimal point"),
        ('{"a": "\t"}', "no control character"),
        ('{"a": "\\x"}', "a known escape"),
        ('{"a": "', "the end of a text"),
        ('{"a": 1} x', "nothing after the end"),
        ('{"a": ' + "[" * 100_000, "nesting of at most 128 levels"),
        ('{"annotations": [{"id": ' + '{"a":' * 100_000, "nesting of at most 128 levels"),
        (b'{"a": "\xff"}', "text in UTF-8"),
        (b'{"a": "\xed\xa0"}', "text in UTF-8"),
    ],
)
def test_text_that_is_no_json_names_the_place(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"x.json is not valid JSON: .*({message})"):
        scanned(tmp_path, text)


def test_a_file_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    text = json.dumps(
        content([{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 1.5, 2e3, 3]}], a="é\n")
    )
    for length in range(1, len(text)):
        with pytest.raises(DataError):
            scanned(tmp_path, text[:length])
    assert len(scanned(tmp_path, "\ufeff" + text)[1]) == 1


def test_changed_bytes_never_crash(tmp_path: Path) -> None:
    one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 1.5, 2e3, 3], "segmentation": [[1] * 6]}
    run_lengths = one | {"id": 2, "segmentation": {"size": [3, 4], "counts": "264"}, "iscrowd": 1}
    original = json.dumps(content([one, run_lengths])).encode()
    rng, refused = np.random.default_rng(0), 0
    for _ in range(1500):
        data = np.frombuffer(original, np.uint8).copy()
        data[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
        try:
            scanned(tmp_path, data.tobytes())
        except DataError:
            refused += 1
    assert refused > 500


def test_truth_for_evaluation_needs_no_names(tmp_path: Path) -> None:
    one = {"id": 5, "image_id": 7, "category_id": 2, "bbox": [0, 1, 2, 3]}
    raw = content([one], images=[{"id": 7}], categories=[{"id": 2}])
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(raw))
    truth = read_truth(path)
    assert truth.columns.areas.tolist() == [6.0] and list(truth["annotations"]) == [one | {"area": 6.0}]
    with pytest.raises(DataError, match="absent.json does not exist"):
        read_truth(tmp_path / "absent.json")
    path.write_text(json.dumps(raw | {"images": [{}]}))
    with pytest.raises(DataError, match='truth.json: number 0 of "images" has no integer "id"'):
        read_truth(path)
