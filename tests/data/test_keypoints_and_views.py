"""Keypoints of COCO-format files, and the views of test-time augmentation."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.data import build
from maskrcnn_benchmark.data.datasets.annotations import AnnotationFile
from maskrcnn_benchmark.data.datasets.detection import ConcatDataset, DetectionDataset
from maskrcnn_benchmark.data.datasets.keypoints import flipped_order
from maskrcnn_benchmark.data.transforms import TestViews, build_test_transforms, build_transforms
from maskrcnn_benchmark.structures.geometry import AffineMap
from maskrcnn_benchmark.structures.keypoints import PERSON_FLIP_ORDER
from maskrcnn_benchmark.structures.views import ViewList
from maskrcnn_benchmark.utils.errors import DataError

SIDED = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
PERSON = ["nose", *(f"{side}_{part}" for part in SIDED for side in ("left", "right"))]
NAMES = ["left_end", "middle", "right_end"]


def _annotation(number: int, image: int, visible: list[int], **more: Any) -> dict[str, Any]:
    places = [(2.0, 4.0), (5.0, 6.0), (12.0, 8.0)]
    points = [v for (x, y), seen in zip(places, visible, strict=True) for v in (x, y, seen)]
    record = {"id": number, "image_id": image, "category_id": 1, "bbox": [1, 2, 14, 12], "iscrowd": 0}
    return record | {"segmentation": [[1, 2, 15, 2, 15, 14]], "keypoints": points, "area": 84} | more


@pytest.fixture
def raw() -> dict[str, Any]:
    """Three images with 4, 1 and 0 labelled keypoints."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 20, "height": 16} for i in (1, 2, 3)],
        "categories": [{"id": 1, "name": "stick", "keypoints": NAMES}],
        "annotations": [
            _annotation(1, 1, [2, 1, 0]),
            _annotation(2, 1, [1, 0, 2]),
            _annotation(3, 2, [0, 0, 1]),
            _annotation(4, 3, [0, 0, 0]),
        ],
    }


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., DetectionDataset]:
    """Function (raw, cfg overrides, options) -> data set over grey images."""
    for i in (1, 2, 3):
        Image.fromarray(np.full((16, 20, 3), 90, np.uint8)).save(tmp_path / f"{i}.png")

    def build_one(raw: dict[str, Any], pairs: list[Any] | None = None, **options: Any) -> DetectionDataset:
        cfg = get_cfg()
        cfg.merge_from_list(["INPUT.MIN_SIZE_TRAIN", (16,), "INPUT.MAX_SIZE_TRAIN", 40, *(pairs or [])])
        settings = {"train": True, "min_keypoints": 1, "transforms": build_transforms(cfg, True)} | options
        return DetectionDataset(AnnotationFile(copy.deepcopy(raw)), str(tmp_path), **settings)

    return build_one


def test_targets_follow_the_transforms(raw: dict[str, Any], make: Callable[..., DetectionDataset]) -> None:
    flip = ["INPUT.HORIZONTAL_FLIP_PROB_TRAIN", 1.0, "INPUT.MIN_SIZE_TRAIN", (32,)]
    plain = make(raw, ["INPUT.HORIZONTAL_FLIP_PROB_TRAIN", 0.0])[0].target.get_field("keypoints")
    flipped_view = make(raw, flip)[0].target.get_field("keypoints")
    assert plain.size == (20, 16) and plain.points.shape == (2, 3, 3)
    assert plain.points[0].tolist() == [[2, 4, 2], [5, 6, 1], [12, 8, 0]]
    # 40 x 32, then x' = 40 - x - 1 with the two ends exchanged; what is not labelled becomes 0
    assert flipped_view.points[0].tolist() == [[0, 0, 0], [29, 12, 1], [35, 8, 2]]
    assert flipped_view.points[1].tolist() == [[15, 16, 2], [0, 0, 0], [35, 8, 1]]


@pytest.mark.parametrize(("least", "kept"), [(0, [1, 2, 3]), (1, [1, 2]), (4, [1]), (5, [])])
def test_images_with_few_keypoints_are_left_out(
    raw: dict[str, Any], make: Callable[..., DetectionDataset], least: int, kept: list[int]
) -> None:
    assert make(raw, min_keypoints=least).image_ids == kept
    assert make(raw, min_keypoints=least, keep_images="all").image_ids == [1, 2, 3]


def test_default_asks_for_ten(raw: dict[str, Any], tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.KEYPOINT_ON", True])
    spec = build.DatasetSpec("x", "coco", "", str(tmp_path))
    file = AnnotationFile(raw)
    assert build.build_dataset(cfg, spec, train=True, annotations=file).image_ids == []
    raw["annotations"] += [_annotation(10 + i, 2, [1, 2, 1]) for i in range(3)]
    assert build.build_dataset(cfg, spec, train=True, annotations=AnnotationFile(raw)).image_ids == [2]
    cfg.merge_from_list(["MODEL.KEYPOINT_ON", False])
    assert build.build_dataset(cfg, spec, train=True, annotations=file).image_ids == [1, 2, 3]


def test_sides_by_name() -> None:
    assert flipped_order(PERSON) == PERSON_FLIP_ORDER
    assert flipped_order(["left", "tip"]) == (0, 1)


def test_records_without_keypoints(raw: dict[str, Any], make: Callable[..., DetectionDataset]) -> None:
    del raw["annotations"][1]["keypoints"]
    points = make(raw, ["INPUT.HORIZONTAL_FLIP_PROB_TRAIN", 0.0])[0].target.get_field("keypoints").points
    assert bool((points[1] == 0).all()) and bool((points[0] != 0).any())


def test_wrong_files(raw: dict[str, Any], make: Callable[..., DetectionDataset]) -> None:
    short = copy.deepcopy(raw)
    short["annotations"][0]["keypoints"] = [1, 2, 2]
    with pytest.raises(DataError, match="annotation 1 has 3 keypoint values"):
        make(short)[0]
    for wrong in ([1, 2], [1, 2, float("nan")], ["a", 1, 2], {"x": 1}):
        bad = copy.deepcopy(raw)
        bad["annotations"][2]["keypoints"] = wrong
        with pytest.raises(DataError, match="annotation 3 has keypoints that are not"):
            make(bad)
    nameless = copy.deepcopy(raw)
    del nameless["categories"][0]["keypoints"]
    with pytest.raises(DataError, match='no category has a list "keypoints"'):
        make(nameless)
    two = copy.deepcopy(raw)
    two["categories"].append({"id": 2, "name": "other", "keypoints": ["a", "b"]})
    with pytest.raises(DataError, match="different keypoints"):
        make(two)
    with pytest.raises(DataError, match="different keypoints"):
        ConcatDataset([make(raw), make(raw, min_keypoints=None)])


def _augmented() -> Any:
    cfg = get_cfg()
    cfg.merge_from_list(
        [
            *("TEST.BBOX_AUG.ENABLED", True, "TEST.BBOX_AUG.H_FLIP", True, "TEST.BBOX_AUG.SCALES", (8, 32)),
            *("TEST.BBOX_AUG.SCALE_H_FLIP", True, "TEST.BBOX_AUG.MAX_SIZE", 36, "INPUT.MIN_SIZE_TEST", 16),
            *("INPUT.MAX_SIZE_TEST", 40, "DATALOADER.NUM_WORKERS", 0, "TEST.IMS_PER_BATCH", 2),
            *("DATALOADER.SIZE_DIVISIBILITY", 8),
        ]
    )
    return cfg


def test_views_in_their_order() -> None:
    """Unchanged, flipped, then every scale unchanged and flipped, each below its max size."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 20, 3), dtype=np.uint8))
    transform = build_test_transforms(_augmented())
    assert isinstance(transform, TestViews)
    views, target, there = transform(image, None, random.Random(0))
    shapes = [tuple(view.image.shape[1:]) for view in views]
    assert shapes == [(16, 20), (16, 20), (8, 10), (8, 10), (29, 36), (29, 36)]
    assert [view.flipped for view in views] == [False, True] * 3 and target is None
    assert there == AffineMap()
    for plain, flipped_view in zip(views[::2], views[1::2], strict=True):
        assert torch.equal(plain.image, flipped_view.image.flip(2))
    plain_cfg = _augmented()
    plain_cfg.TEST.BBOX_AUG.ENABLED = False
    assert torch.equal(build_test_transforms(plain_cfg)(image, None, random.Random(0))[0], views[0].image)


def test_loader_gives_batches_of_views(raw: dict[str, Any], tmp_path: Path) -> None:
    """Images meet in a batch when every view has the same padded size."""
    raw["images"][2] |= {"width": 18}
    for image in raw["images"]:
        pixels = np.zeros((16, image["width"], 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / image["file_name"])
    cfg = _augmented()
    spec = build.DatasetSpec("x", "coco", "", str(tmp_path))
    dataset = build.build_dataset(cfg, spec, train=False, annotations=AnnotationFile(raw))
    batches = list(build.build_test_loader(cfg, dataset))
    # 20 and 18 pixels are both padded to 24, but at short side 8 the images are 10 and 9 wide: 16, 16
    assert sorted(i for batch in batches for i in batch.image_ids) == [1, 2, 3]
    for batch in batches:
        assert isinstance(batch.images, ViewList) and len(batch.images.views()) == 6
        for i, view in enumerate(batch.images.views()):
            assert len(view) == len(batch) and all(g.flipped == (i % 2 == 1) for g in view.geometry)
