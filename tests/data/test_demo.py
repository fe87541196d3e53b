"""The demo generator: same bytes, long tail, masks on their objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.demo import DemoOptions, generate_demo
from maskrcnn_benchmark.data.datasets.demo.categories import demo_categories, tail_counts
from maskrcnn_benchmark.data.datasets.demo.contours import signed_area, trace
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.utils.files import read_json, sha256_file

SMALL = DemoOptions(train=30, val=14, size=96, seed=3, classes=24)


def quiet(text: str) -> None:
    """No progress lines."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo set."""
    folder = tmp_path_factory.mktemp("demo") / "set"
    assert generate_demo(folder, SMALL, report=quiet)
    return folder


def rle(ann: dict[str, Any]) -> Any:
    """Run lengths of an annotation."""
    return coco_mask.merge(coco_mask.frPyObjects(ann["segmentation"], SMALL.size, SMALL.size))


def test_same_options_same_bytes(demo: Path, tmp_path: Path) -> None:
    """Another folder gets identical files, a finished one is left alone, other options replace it."""
    again = tmp_path / "again"
    generate_demo(again, SMALL, report=quiet)
    files = sorted(p.relative_to(demo) for p in demo.rglob("*") if p.is_file())
    assert len(files) == 30 + 14 + 3
    assert all(sha256_file(demo / f) == sha256_file(again / f) for f in files)
    before = (again / "train.json").stat().st_mtime_ns
    assert not generate_demo(again, SMALL, report=quiet)
    assert (again / "train.json").stat().st_mtime_ns == before
    assert generate_demo(again, DemoOptions(20, 14, 96, 4, 5), report=quiet)
    assert len(list((again / "images/train").iterdir())) == 20
    assert [p.name for p in tmp_path.iterdir()] == ["again"]


def test_foreign_folder_and_impossible_options(tmp_path: Path) -> None:
    """Nothing of the user's is removed; options are checked first."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds no demo data set"):
        generate_demo(tmp_path, SMALL, report=quiet)
    for options, message in (
        (DemoOptions(classes=33), "--classes must lie in"),
        (DemoOptions(train=3), "--train 3 images are too few for 24"),
        (DemoOptions(val=4), "--val 4 images are too few"),
        (DemoOptions(size=20), "--size must be at least"),
    ):
        with pytest.raises(DataError, match=message):
            generate_demo(tmp_path / "new", options, report=quiet)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_lvis_fields_are_consistent(demo: Path, split: str) -> None:
    """Counts, negatives, boxes and areas agree with the annotations; one image is empty."""
    annotations = AnnotationFile.load(demo / f"{split}.json")
    assert annotations.kind == "lvis" and len(annotations.categories) == 24
    assert sorted(c["name"] for c in annotations.categories) == [c["name"] for c in annotations.categories]
    for category in annotations.categories:
        of_category = [
            a["image_id"] for a in annotations.raw["annotations"] if a["category_id"] == category["id"]
        ]
        assert (category["instance_count"], category["image_count"]) == (
            len(of_category),
            len(set(of_category)),
        )
        assert {"synset", "synonyms", "def"} <= set(category) and category["frequency"] in "rcf"
        assert len(of_category) >= 1
    assert sum(not anns for anns in annotations.anns_by_image.values()) == 1
    for image in annotations.images:
        anns = annotations.anns_by_image[image["id"]]
        assert not set(image["neg_category_ids"]) & {a["category_id"] for a in anns}
        assert len(image["neg_category_ids"]) == 8 and len(anns) <= 6
        with Image.open(demo / "images" / split / image["file_name"]) as opened:
            assert opened.size == (96, 96) and opened.mode == "RGB"
        for ann in anns:
            x, y, w, h = ann["bbox"]
            assert x >= 0 and y >= 0 and x + w <= 96 and y + h <= 96
            assert ann["area"] == coco_mask.area(rle(ann)) > 30
            bx, by, bw, bh = coco_mask.toBbox(rle(ann))
            assert max(abs(bx - x), abs(by - y), abs(bw - w), abs(bh - h)) <= 2.5  # tips thinner than a pixel


def test_masks_are_disjoint_and_lie_on_objects(demo: Path) -> None:
    """Visible masks are nearly disjoint, and pixels inside differ from the ring around them."""
    annotations = AnnotationFile.load(demo / "train.json")
    contrast = []
    for image in annotations.images:
        masks = [coco_mask.decode(rle(a)).astype(bool) for a in annotations.anns_by_image[image["id"]]]
        if not masks:
            continue
        everything = np.sum(masks, axis=0)
        assert (everything > 1).sum() <= 0.1 * (everything > 0).sum()
        pixels = np.array(Image.open(demo / "images/train" / image["file_name"]), dtype=float)
        background = np.median(pixels[everything == 0], axis=0)
        contrast += [np.abs(pixels[m].mean(0) - background).sum() for m in masks]
    assert np.median(contrast) > 60


def test_long_tail_and_names() -> None:
    """300 down to 12 objects in 600 images; all pairs of shape and texture differ; ids are alphabetical."""
    counts = tail_counts(24, 600)
    assert counts[0] == 300 and counts[-1] == 12 and counts == sorted(counts, reverse=True)
    for number in (2, 24, 32):
        categories = demo_categories(number)
        assert len({c.name for c in categories}) == number
        assert [c.name for c in sorted(categories, key=lambda c: c.id)] == sorted(c.name for c in categories)


def test_frequency_is_decided_on_training(demo: Path) -> None:
    """Both files give a category the same group."""
    groups = [
        {c["id"]: c["frequency"] for c in read_json(demo / f"{s}.json")["categories"]}
        for s in ("train", "val")
    ]
    assert groups[0] == groups[1] and "f" in groups[0].values()


def test_trace_round_trip() -> None:
    """Outlines rasterise back to the bitmap; holes turn the other way; touching corners are two outlines."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        bitmap = np.zeros((24, 24), dtype=bool)
        for _ in range(3):
            y, x = rng.integers(0, 16, 2)
            bitmap[y : y + rng.integers(2, 9), x : x + rng.integers(2, 9)] = True
        loops = trace(bitmap)
        assert sum(signed_area(loop) for loop in loops) == bitmap.sum()
        outer = [loop.reshape(-1).astype(float).tolist() for loop in loops if signed_area(loop) > 0]
        if len(outer) == len(loops):
            back = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(outer, 24, 24)))
            assert np.array_equal(back.astype(bool), bitmap)
    ring = np.ones((5, 5), dtype=bool)
    ring[2, 2] = False
    assert sorted(signed_area(loop) for loop in trace(ring)) == [-1, 25]
    assert len(trace(np.eye(3, dtype=bool))) == 3
    assert trace(np.zeros((3, 3), dtype=bool)) == []
