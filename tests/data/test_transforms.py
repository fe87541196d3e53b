"""Sizes, flips, colours, normalisation."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskrcnn_benchmark.data.transforms import (
    ColorJitter,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    Resize,
    SizeRule,
    ToNormalizedTensor,
    build_transforms,
    resized_size,
)
from maskrcnn_benchmark.structures import BoxList
from maskrcnn_benchmark.structures.geometry import AffineMap


def random_image(width: int = 30, height: int = 20) -> Image.Image:
    """Random pixels."""
    return Image.fromarray(np.random.default_rng(3).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "row",
    [
        (640, 480, 800, 1333, 1066, 800),
        (1333, 800, 600, 1000, 999, 600),
        (1000, 300, 800, 1333, 1333, 400),
        (2048, 1024, 800, 1333, 1332, 666),
        (333, 500, 800, 1333, 800, 1201),
        (640, 640, 640, 1333, 640, 640),
    ],
)
def test_published_sizes(row: tuple[int, ...]) -> None:
    """Width, height, shortest, longest -> width, height."""
    assert resized_size(*row[:4]) == row[4:]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 900), st.integers(900, 1400))
def test_sizes_stay_in_bounds(width: int, height: int, shortest: int, longest: int) -> None:
    """Sides stay positive, the short one at most the wish; the cap holds but for the rounding."""
    new_width, new_height = resized_size(width, height, shortest, longest)
    small, large = min(new_width, new_height), max(new_width, new_height)
    assert 1 <= small <= shortest
    if (width, height) != (new_width, new_height):
        assert large <= longest * small / max(small - 0.5, 0.5) + 1
    assert (new_width >= new_height) == (width >= height) or abs(new_width - new_height) <= 1


def test_flip_moves_pixels_with_boxes() -> None:
    """A bright block stays under its box; the result says that it is flipped."""
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[4:8, 5:12] = 255
    target = BoxList([[5, 4, 11, 7]], (30, 20))
    for transform, is_flipped in ((RandomHorizontalFlip(1.0), True), (RandomVerticalFlip(1.0), False)):
        image, changed, there = transform(Image.fromarray(pixels), target, random.Random(0))
        x1, y1, x2, y2 = changed.bbox[0].long().tolist()
        assert (there.scale_x < 0) is is_flipped and torch.equal(there.boxes(target.bbox), changed.bbox)
        assert (
            np.array(image)[y1 : y2 + 1, x1 : x2 + 1].min() == 255 and np.array(image).sum() == pixels.sum()
        )
    image, changed, there = RandomHorizontalFlip(0.0)(Image.fromarray(pixels), None, random.Random(0))
    assert changed is None and there == AffineMap()


def test_normalisation() -> None:
    """BGR 0..255 minus mean, and RGB 0..1."""
    image = Image.new("RGB", (2, 1), (10, 20, 30))
    bgr, _, _ = ToNormalizedTensor((1, 2, 3), (2, 2, 2), True)(image, None, random.Random())
    assert bgr[:, 0, 0].tolist() == [14.5, 9.0, 3.5] and bgr.is_contiguous()
    rgb, _, _ = ToNormalizedTensor((0, 0, 0), (1, 1, 1), False)(image, None, random.Random())
    assert torch.allclose(rgb[:, 0, 1], torch.tensor([10, 20, 30]) / 255)


def test_jitter_changes_only_colours_and_repeats() -> None:
    """The same generator gives the same image; strength 0 changes nothing."""
    jitter = ColorJitter(0.4, 0.4, 0.4, 0.1)
    first, second = (jitter(random_image(), None, random.Random(5))[0] for _ in range(2))
    assert first.tobytes() == second.tobytes() != random_image().tobytes() and first.size == (30, 20)
    assert (
        ColorJitter(0, 0, 0, 0)(random_image(), None, random.Random(5))[0].tobytes()
        == random_image().tobytes()
    )
    with pytest.raises(ValueError, match=r"INPUT\.HUE"):
        ColorJitter(0, 0, 0, 0.7)


def config(**changes: Any) -> SimpleNamespace:
    """A tree with the INPUT keys."""
    keys: dict[str, Any] = {
        "MIN_SIZE_TRAIN": (16, 24),
        "MAX_SIZE_TRAIN": 60,
        "MIN_SIZE_TEST": 20,
        "MAX_SIZE_TEST": 60,
        "MIN_SIZE_RANGE_TRAIN": (-1, -1),
        "FIXED_SIZE_TRAIN": (0, 0),
        "FIXED_SIZE_TEST": (0, 0),
        "INTERPOLATION": "pillow",
        "SSD_AUG": SimpleNamespace(ENABLED=False),
        "BRIGHTNESS": 0.2,
        "CONTRAST": 0.0,
        "SATURATION": 0.0,
        "HUE": 0.0,
        "HORIZONTAL_FLIP_PROB_TRAIN": 0.5,
        "VERTICAL_FLIP_PROB_TRAIN": 0.5,
        "PIXEL_MEAN": [0, 0, 0],
        "PIXEL_STD": [1, 1, 1],
        "TO_BGR255": True,
    }
    return SimpleNamespace(INPUT=SimpleNamespace(**{**keys, **changes}))


def test_build() -> None:
    """Training draws sizes and flips, testing neither; flip_prob gives both views without other changes."""
    train = build_transforms(config(), train=True)
    results = [train(random_image(), None, random.Random(seed)) for seed in range(20)]
    assert {tuple(r[0].shape[1:]) for r in results} == {(16, 24), (24, 36)}
    assert {r[2].scale_x < 0 for r in results} == {True, False}
    test = build_transforms(config(), train=False)
    plain, _, there = test(random_image(), None, random.Random(1))
    assert torch.equal(plain, test(random_image(), None, random.Random(2))[0]) and there.scale_x > 0
    single = config(MIN_SIZE_TRAIN=(20,))
    still, _, there = build_transforms(single, train=True, flip_prob=0.0)(
        random_image(), None, random.Random(3)
    )
    assert torch.equal(still, plain) and there.scale_x > 0
    turned, _, there = build_transforms(single, train=True, flip_prob=1.0)(
        random_image(), None, random.Random(3)
    )
    assert torch.equal(turned.flip(2), plain) and there.scale_x < 0


def test_resize_scales_target() -> None:
    """Boxes follow the true ratio of sizes."""
    image, target, _ = Resize(SizeRule((41,), 1000))(
        random_image(30, 20), BoxList([[0, 0, 29, 19]], (30, 20)), random.Random()
    )
    assert image.size == (61, 41) and target is not None and target.size == (61, 41)
    assert torch.allclose(target.bbox, torch.tensor([[0, 0, 29 * 61 / 30, 19 * 41 / 20]]))
