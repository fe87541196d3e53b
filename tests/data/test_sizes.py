"""Sizes of images by every rule, and how their pixels are interpolated."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.data.transforms import (
    RandomHorizontalFlip,
    RandomVerticalFlip,
    Resize,
    SizeRule,
    ToNormalizedTensor,
    build_test_transforms,
    build_transforms,
    scaled_size,
)
from maskrcnn_benchmark.data.transforms.images import resize_image
from maskrcnn_benchmark.structures import BoxList, SegmentationMask

REFERENCE = Path(__file__).parents[1] / "parity/golden/opencv/resize.npz"  # cv2 4.11, INTER_LINEAR


def noise(width: int = 64, height: int = 48) -> Image.Image:
    """Random pixels."""
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_pixels_are_those_of_opencv() -> None:
    """Enlarged, reduced, one axis only, single rows and pixels: within one level; floats nearly equal."""
    arrays = np.load(REFERENCE)
    count = sum(name.startswith("in") for name in arrays.files)
    assert count == 7
    for number in range(count):
        reference = arrays[f"out{number}"]
        size = (reference.shape[1], reference.shape[0])
        resized = resize_image(Image.fromarray(arrays[f"in{number}"]), size, "opencv")
        assert isinstance(resized, Image.Image) and resized.size == size
        difference = np.asarray(resized).astype(int) - reference
        assert np.abs(difference).max() <= 1 and abs(difference.mean()) < 0.35
    pixels = resize_image(arrays["in2"].astype(np.float32), (17, 33), "opencv")
    assert isinstance(pixels, np.ndarray) and np.abs(pixels - arrays["float2"]).max() < 0.05


@pytest.mark.parametrize("interpolation", ["pillow", "opencv"])
def test_float_images_resize_like_bytes(interpolation: str) -> None:
    """Up to the rounding of bytes; values beyond the bytes stay; the same size is the same image."""
    image = noise()
    for size in ((100, 70), (30, 20), (64, 20)):
        resized = resize_image(np.asarray(image, np.float32) + 500, size, interpolation)
        reference = np.asarray(resize_image(image, size, interpolation), np.float32)
        assert resized.dtype == np.float32 and np.abs(resized - 500 - reference).max() <= 1.01
    assert resize_image(image, image.size, interpolation) is image


def test_opencv_does_not_average_when_shrinking() -> None:
    """A fine grid stays a grid, where averaging makes it grey."""
    grid = np.zeros((40, 40, 3), np.uint8)
    grid[:, ::4] = 255
    sharp, smooth = (
        np.asarray(resize_image(Image.fromarray(grid), (8, 8), how)) for how in ("opencv", "pillow")
    )
    assert np.ptp(sharp) > 200 > 100 > np.ptp(smooth)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (640, 480, (1067, 800)),
        (480, 640, (800, 1067)),
        (1333, 400, (1333, 400)),
        (2000, 500, (1333, 333)),
        (500, 375, (1067, 800)),
        (5000, 1, (1333, 1)),
    ],
)
def test_sizes_of_mmdetection(width: int, height: int, expected: tuple[int, int]) -> None:
    """One factor for both sides, halves up."""
    assert scaled_size(width, height, 800, 1333) == expected


def test_rules_of_a_config() -> None:
    cfg = get_cfg()
    assert SizeRule.from_cfg(cfg, train=True) == SizeRule((800,), 1333)
    cfg.merge_from_list(["INPUT.MIN_SIZE_RANGE_TRAIN", (640, 643), "INPUT.INTERPOLATION", "opencv"])
    rule = SizeRule.from_cfg(cfg, train=True)
    drawn = [min(rule.sample(640, 480, random.Random(seed))) for seed in range(400)]
    assert set(drawn) == {640, 641, 642, 643} and min(drawn.count(side) for side in set(drawn)) > 60
    assert rule.largest(640, 480) == (857, 643)
    assert SizeRule.from_cfg(cfg, train=False).largest(640, 480) == (1067, 800)
    cfg.merge_from_list(["INPUT.FIXED_SIZE_TRAIN", (576, 512), "INPUT.FIXED_SIZE_TEST", (544, 480)])
    assert SizeRule.from_cfg(cfg, train=True).sample(640, 480, random.Random(0)) == (576, 512)
    test = SizeRule.from_cfg(cfg, train=False)
    assert test.largest(10, 900) == test.size(1, 1, 800) == (544, 480)


def test_fixed_size_stretches_boxes_and_masks() -> None:
    """Each axis by its own factor."""
    target = BoxList([[16, 12, 31, 23]], (64, 48))
    bits = torch.zeros((1, 48, 64), dtype=torch.bool)
    bits[0, 12:24, 16:32] = True
    polygon = [[[16, 12, 32, 12, 32, 24, 16, 24]]]
    for masks in (SegmentationMask(bits, (64, 48), "mask"), SegmentationMask(polygon, (64, 48))):
        target.add_field("masks", masks)
        image, changed, _ = Resize(SizeRule((1,), 1, (32, 96)))(noise(), target, random.Random(0))
        assert image.size == (32, 96) and changed is not None and changed.size == (32, 96)
        assert changed.bbox.tolist() == [[8, 24, 15.5, 46]]
        reference = torch.zeros((1, 96, 32), dtype=torch.bool)
        reference[0, 24:48, 8:16] = True
        assert torch.equal(changed.get_field("masks").to_bitmaps(), reference)


def test_transforms_with_a_fixed_size() -> None:
    """Training, testing and the plain view of test-time augmentation; its other views keep the ratio."""
    cfg = get_cfg()
    sizes = ["INPUT.FIXED_SIZE_TRAIN", (40, 24), "INPUT.FIXED_SIZE_TEST", (24, 40)]
    cfg.merge_from_list([*sizes, "INPUT.INTERPOLATION", "opencv"])
    assert build_transforms(cfg, train=True)(noise(), None, random.Random(0))[0].shape == (3, 24, 40)
    assert build_test_transforms(cfg)(noise(), None, random.Random(0))[0].shape == (3, 40, 24)
    cfg.merge_from_list(["TEST.BBOX_AUG.ENABLED", True, "TEST.BBOX_AUG.SCALES", (96,)])
    views, _, _ = build_test_transforms(cfg)(noise(), None, random.Random(0))
    assert [tuple(view.image.shape) for view in views] == [(3, 40, 24), (3, 96, 128)]


def test_float_images_flip_and_become_tensors() -> None:
    """As the same image in bytes does."""
    image, rng = noise(), random.Random(0)
    to_tensor = ToNormalizedTensor((1, 2, 3), (4, 5, 6), True)
    for flip in (RandomHorizontalFlip(1.0), RandomVerticalFlip(1.0)):
        reference = to_tensor(flip(image, None, rng)[0], None, rng)[0]
        pixels = np.asarray(image, np.float32)
        assert torch.equal(to_tensor(flip(pixels, None, rng)[0], None, rng)[0], reference)
