"""data.datasets.voc: XML files and lists of Pascal VOC."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn_benchmark.config.catalog import DatasetSpec
from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.data.build import build_dataset
from maskrcnn_benchmark.data.datasets.readers import load_annotations
from maskrcnn_benchmark.data.datasets.voc import VOC_CLASSES, load_voc, read_xml
from maskrcnn_benchmark.utils.errors import DataError

IMAGES = {
    "2008_000012": [("dog", (5, 6, 24, 30), 0), ("cat", (30, 3, 60, 40), 0), ("dog", (1, 1, 9, 9), 1)],
    "2008_000003": [("person", (10, 10, 20, 20), 1)],
    "2008_000007": [],
}
LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "'
    + "&b;" * 1000
    + '"><!ENTITY d "'
    + "&c;" * 1000
    + '">]><annotation>&d;</annotation>'
)


@pytest.fixture
def root(tmp_path: Path, dataset_trees: ModuleType) -> Path:
    """A tree with the split "train"."""
    dataset_trees.make_voc(tmp_path / "VOC", "train", IMAGES)
    return tmp_path / "VOC"


def _list(root: Path) -> str:
    return str(root / "ImageSets" / "Main" / "train.txt")


def _spec(root: Path) -> DatasetSpec:
    return DatasetSpec("voc_train", "voc", _list(root), str(root / "JPEGImages"))


def test_records(root: Path) -> None:
    file = load_annotations(_spec(root))
    assert file.kind == "voc"
    assert [c["name"] for c in file.categories] == sorted(VOC_CLASSES) and file.category_ids == [
        *range(1, 21)
    ]
    assert [image["id"] for image in file.images] == [2008000003, 2008000007, 2008000012]
    assert file.images[0] == {"id": 2008000003, "file_name": "2008_000003.jpg", "width": 60, "height": 40}
    first, second, third = file.anns_by_image[2008000012]
    assert first["category_id"] == 12 and second["category_id"] == 8
    # corners from 1 with both ends inside
    assert first["bbox"] == [4, 5, 20, 25] and first["area"] == 500
    assert [a["ignore"] for a in (first, second, third)] == [0, 0, 1]
    assert pickle.loads(pickle.dumps(file)).kind == "voc"


def test_training_drops_difficult_objects_and_testing_keeps_all_images(root: Path) -> None:
    cfg = load_config(None, ["INPUT.MIN_SIZE_TRAIN", "(40,)", "INPUT.MIN_SIZE_TEST", "40"])
    train = build_dataset(cfg, _spec(root), train=True)
    assert train.image_ids == [2008000012]
    target = train.target(0)
    assert target.get_field("labels").tolist() == [12, 8]
    assert target.bbox.tolist() == [[4, 5, 23, 29], [29, 2, 59, 39]]
    assert train[0].image.shape == (3, 40, 60)
    assert not train.has_masks and train.class_names[12] == "dog"
    assert len(build_dataset(cfg, _spec(root), train=False)) == 3


def test_variants_that_real_files_have(root: Path) -> None:
    path = root / "Annotations" / "2008_000007.xml"
    text = (
        "\ufeff<annotation><filename>other.png</filename><size><width>60</width><height>40</height></size>"
        "<object><name> dog </name><bndbox><ymin>1.5</ymin><xmax>9.25</xmax><ymax>8</ymax><xmin>2</xmin>"
        "</bndbox></object></annotation>"
    )
    path.write_text(text, encoding="utf-8")
    file = load_voc(_list(root))
    assert file.images[1]["file_name"] == "2008_000007.png"
    (record,) = file.anns_by_image[2008000007]
    assert record["bbox"] == [1, 0.5, 8.25, 7.5] and record["iscrowd"] == 0


def test_ids_count_where_digits_do_not_tell_names_apart(tmp_path: Path, dataset_trees: ModuleType) -> None:
    for folder, names in (("a", ["x1", "y1"]), ("b", ["left", "right"]), ("c", ["9" * 30, "1"])):
        path = dataset_trees.make_voc(tmp_path / folder, "train", {name: [] for name in names})
        assert [image["id"] for image in load_voc(str(path)).images] == [1, 2]


def test_own_classes(root: Path) -> None:
    file = load_voc(_list(root), ("person", "cat", "dog"))
    assert [a["category_id"] for a in file.anns_by_image[2008000012]] == [3, 2, 3]
    with pytest.raises(
        DataError, match=r"2008_000012.xml: unknown class 'cat'; known: person, dog; name your own"
    ):
        load_voc(_list(root), ("person", "dog"))


def _object(**sides: object) -> str:
    box = {"xmin": 1, "ymin": 1, "xmax": 5, "ymax": 5} | sides
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in box.items())
    size = "<size><width>60</width><height>40</height></size>"
    return f"<annotation>{size}<object><name>dog</name><bndbox>{inner}</bndbox></object></annotation>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid XML: no element found"),
        ("<annotation><object>", "is not valid XML"),
        ("<annotation>&b;</annotation>", "is not valid XML: undefined entity"),
        (LAUGHS, "declares a document type, which annotations do not need"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "declares a document type"),
        ("<annotation/>", r"the image has no number in <size><width>, found None"),
        ("<annotation><size><width>0</width><height>4</height></size></annotation>", "has the size 0 x 4"),
        (_object(xmin="left"), r"object 'dog' has no number in <bndbox><xmin>, found 'left'"),
        (_object(ymax="nan"), r"no number in <bndbox><ymax>, found 'nan'"),
        (_object(xmax=0), "object 'dog' has the box 1, 1, 0, 5; expected xmin <= xmax"),
    ],
)
def test_bad_xml_is_one_line_with_the_file(root: Path, text: str, message: str) -> None:
    path = root / "Annotations" / "2008_000003.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        load_voc(_list(root))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("1", 1), ("", 0), ("Unspecified", 0), ("false", 0), ("no", 0), ("true", 1), (" 1 ", 1)],
)
def test_difficult_is_read_by_its_meaning(root: Path, text: str, expected: int) -> None:
    path = root / "Annotations" / "2008_000007.xml"
    path.write_text(_object().replace("<bndbox>", f"<difficult>{text}</difficult><bndbox>"))
    (record,) = load_voc(_list(root)).anns_by_image[2008000007]
    assert record["ignore"] == record["iscrowd"] == expected


def test_difficult_of_another_word_is_refused(root: Path) -> None:
    path = root / "Annotations" / "2008_000007.xml"
    path.write_text(_object().replace("<bndbox>", "<difficult>very</difficult><bndbox>"))
    with pytest.raises(
        DataError, match=r"2008_000007\.xml: object 'dog' has <difficult> 'very'; expected 0, 1"
    ):
        load_voc(_list(root))


def test_a_byte_order_mark_in_the_list(root: Path) -> None:
    path = Path(_list(root))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(load_voc(str(path)).images) == 3


def test_bad_bytes(root: Path) -> None:
    path = root / "Annotations" / "2008_000003.xml"
    path.write_bytes("<annotation>".encode("utf-16"))
    with pytest.raises(DataError, match="is not UTF-8 text"):
        load_voc(_list(root))
    with open(path, "wb") as file:
        file.truncate(2**25)
    with pytest.raises(DataError, match="more than 16 MiB"):
        load_voc(_list(root))


@given(content=st.binary(max_size=200) | st.text(alphabet="<>/&;ab!x\"=' ", max_size=80).map(str.encode))
def test_any_bytes_are_xml_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.xml"
    path.write_bytes(content)
    try:
        read_xml(path)
    except DataError as error:
        assert "\n" not in str(error)


def test_missing_files(root: Path) -> None:
    with pytest.raises(DataError, match=r"list of images .*val\.txt does not exist"):
        load_voc(str(root / "ImageSets" / "Main" / "val.txt"))
    (root / "Annotations" / "2008_000007.xml").unlink()
    with pytest.raises(DataError, match=r"2008_000007\.xml does not exist; add it or remove 2008_000007"):
        load_voc(_list(root))
    (root / "Annotations").rename(root / "Elsewhere")
    with pytest.raises(DataError, match=r"folder .*VOC/Annotations does not exist"):
        load_voc(_list(root))


@pytest.mark.parametrize(
    ("text", "message"),
    [("2008_000012 -1\n", "'2008_000012 -1' is more than a name"), ("a\nb\na\n", "'a' occurs twice")],
)
def test_bad_lists(root: Path, text: str, message: str) -> None:
    Path(_list(root)).write_text(text)
    with pytest.raises(DataError, match=message):
        load_voc(_list(root))


def test_empty_list(root: Path) -> None:
    Path(_list(root)).write_text("\n")
    file = load_voc(_list(root))
    assert not file.images and not len(file.columns) and len(file.categories) == 20
