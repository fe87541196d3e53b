"""SSD-style augmentation: colours, expansion, crop, and the three in a data set."""

from __future__ import annotations

import colorsys
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.data import build
from maskrcnn_benchmark.data.datasets.detection import DetectionDataset
from maskrcnn_benchmark.data.transforms import build_transforms
from maskrcnn_benchmark.data.transforms.ssd import (
    ExpandAndCrop,
    PhotometricDistortion,
    centres_inside,
    change_chroma,
    window_ious,
)
from maskrcnn_benchmark.data.types import SampleKey
from maskrcnn_benchmark.structures import BoxList, SegmentationMask
from maskrcnn_benchmark.structures.geometry import AffineMap

GREY = (100.0, 110.0, 120.0)


def noise(width: int = 60, height: int = 40) -> Image.Image:
    """Random pixels."""
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8))


def scene() -> BoxList:
    """Three rectangles in an image of 60 x 40 with their masks and ids."""
    boxes = [[5, 5, 24, 19], [30, 8, 54, 35], [0, 30, 9, 39]]
    target = BoxList(boxes, (60, 40))
    target.add_field("labels", torch.tensor([1, 2, 3]))
    target.add_field("annotation_ids", torch.tensor([11, 12, 13]))
    flat = [[[x1, y1, x2 + 1, y1, x2 + 1, y2 + 1, x1, y2 + 1]] for x1, y1, x2, y2 in boxes]
    target.add_field("masks", SegmentationMask(flat, (60, 40)))
    return target


def test_chroma_is_that_of_hsv() -> None:
    """Against the standard library; grey stays, full circles and factor 1 change nothing."""
    pixels = np.random.default_rng(2).uniform(0, 255, (3, 9, 7)).astype(np.float32)
    pixels[:, 0, 0] = 80
    for factor, turn in ((0.6, 0.0), (1.0, 18.0), (0.5, -18.0), (0.9, 200.0)):
        result = change_chroma(pixels, factor, turn).reshape(3, -1).T
        for before, after in zip(pixels.reshape(3, -1).T / 255, result / 255, strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*before.tolist())
            expected = colorsys.hsv_to_rgb((hue + turn / 360) % 1, saturation * factor, value)
            assert np.allclose(after, expected, atol=1e-5)
    assert change_chroma(pixels, 1.0, 0.0) is pixels
    assert np.allclose(change_chroma(pixels, 1.0, 360.0), pixels, atol=1e-3)


def test_each_colour_change_comes_every_second_time() -> None:
    """One strength at a time: half the images stay, the others lie in the range; the target stays."""
    image, target = noise(), scene()
    plain = np.asarray(image, np.float32)
    cases: list[tuple[tuple, Callable[[np.ndarray], np.ndarray], float, float]] = [
        ((32, (1, 1), (1, 1), 0), lambda result: result - plain, -32, 32),
        ((0, (0.5, 1.5), (1, 1), 0), lambda result: result[plain > 50] / plain[plain > 50], 0.5, 1.5),
    ]
    for strengths, measure, low, high in cases:
        values = []
        for seed in range(200):
            result, same, there = PhotometricDistortion(*strengths)(image, target, random.Random(seed))
            assert result.dtype == np.float32 and same is target and there == AffineMap()
            order = [
                int(np.corrcoef(result[..., c].ravel(), plain.reshape(-1, 3).T)[0, 1:].argmax())
                for c in range(3)
            ]
            change = measure(result[..., np.argsort(order)])
            assert np.ptp(change) < 1e-3
            values.append(float(change.mean()))
        still = np.mean(np.isclose(values, (low + high) / 2, atol=1e-4))
        assert 0.4 < still < 0.6 and low <= min(values) < 0.8 * low + 0.2 * high
        assert high >= max(values) > 0.2 * low + 0.8 * high
    assert np.array_equal(np.asarray(image, np.float32), plain)


def test_all_colours_together_leave_bytes_and_repeat() -> None:
    distort = PhotometricDistortion(32, (0.5, 1.5), (0.5, 1.5), 18)
    result = [distort(noise(), None, random.Random(seed))[0] for seed in (*range(30), 3)]
    assert np.array_equal(result[3], result[-1]) and max(f.max() for f in result) > 255 > 0 > min(
        f.min() for f in result
    )


def test_ious_and_centres() -> None:
    """IoU with the last pixels counted; a centre on the border and a rest of one line do not count."""
    boxes = np.array([[0.0, 0, 9, 9], [5, 5, 14, 14], [40, 40, 41, 41], [18, 2, 21, 5]])
    windows = np.array([[0, 0, 10, 10], [0, 0, 20, 20], [0, 0, 19, 19]])
    assert window_ious(windows, boxes)[0].tolist() == [1, 25 / 175, 0, 0]
    assert centres_inside(windows, boxes).tolist() == [[True, True, False, x] for x in (False, True, False)]
    assert not centres_inside(np.array([[9, 0, 30, 30]]), np.array([[0.0, 0, 18, 9]])).any()
    assert window_ious(windows, boxes[:0]).shape == centres_inside(windows, boxes[:0]).shape == (3, 0)
    assert window_ious(windows[:0], boxes).shape == centres_inside(windows[:0], boxes).shape == (0, 4)


def test_expansion_alone() -> None:
    """Every second time; the image lies whole in the colour given, boxes and masks with it."""
    step, image, grown = ExpandAndCrop(GREY, (1.5, 4.0), (), 1.0), noise(), 0
    for seed in range(80):
        result, target, there = step(image, scene(), random.Random(seed))
        height, width = result.shape[:2]
        assert target is not None and target.size == (width, height) and len(target) == 3
        x0, y0 = (target.bbox[0, :2] - 5).long().tolist()
        assert np.array_equal(result[y0 : y0 + 40, x0 : x0 + 60], np.asarray(image, np.float32))
        assert torch.equal(target.bbox, scene().bbox + torch.tensor([x0, y0, x0, y0]))
        assert torch.equal(target.bbox, there.boxes(scene().bbox))
        masks = target.get_field("masks").to_bitmaps()
        assert torch.equal(masks[:, y0 : y0 + 40, x0 : x0 + 60], scene().get_field("masks").to_bitmaps())
        assert masks.sum() == scene().get_field("masks").to_bitmaps().sum()
        if (width, height) != (60, 40):
            grown += 1
            assert 1.45 < width / 60 < 4.01 and abs(width / 60 - height / 40) < 0.05
            assert (result[0, 0] == GREY).all() or (result[-1, -1] == GREY).all()
    assert 25 < grown < 55


@pytest.mark.parametrize("form", ["poly", "mask"])
def test_crops(form: str) -> None:
    """Sides, aspect, IoU with all boxes, objects by their centres, and all fields with them."""
    image, plain = noise(), scene()
    if form == "mask":
        plain.add_field("masks", SegmentationMask(plain.get_field("masks").to_bitmaps(), (60, 40), "mask"))
    bits, pixels = plain.get_field("masks").to_bitmaps(), np.asarray(image, np.float32)
    step, counts, sizes = ExpandAndCrop(GREY, (1.0, 1.0), (0.1, 0.3), 0.3), [], set()
    for seed in range(150):
        result, target, _ = step(image, plain, random.Random(seed))
        height, width = result.shape[:2]
        sizes.add((width, height))
        assert target is not None and target.size == (width, height)
        assert width >= 17 and height >= 11 and 0.45 < height / width < 2.1
        place = [
            (x, y)
            for x in range(61 - width)
            for y in range(41 - height)
            if np.array_equal(pixels[y : y + height, x : x + width], result)
        ]
        ((x, y),) = place
        window = (x, y, x + width, y + height)
        kept = (
            [0, 1, 2]
            if (width, height) == (60, 40)
            else centres_inside(np.array([window]), plain.bbox.numpy())[0].nonzero()[0].tolist()
        )
        assert kept and target.get_field("annotation_ids").tolist() == [11 + index for index in kept]
        assert target.get_field("labels").tolist() == [1 + index for index in kept]
        low, high = torch.tensor([x, y, x, y]), torch.tensor([width - 1, height - 1] * 2)
        assert torch.equal(target.bbox, torch.minimum((plain.bbox[kept] - low).clamp(min=0), high))
        masks = target.get_field("masks")
        assert masks.mode == form
        assert torch.equal(masks.to_bitmaps(), bits[kept][:, y : y + height, x : x + width])
        counts.append(len(kept))
    assert set(counts) == {1, 2, 3} and len(sizes) > 50


def test_ious_with_all_boxes() -> None:
    """Windows that are sampled for a min IoU reach it; one that no window reaches is replaced by another."""
    boxes = np.array([[10.0, 10, 39, 29]])
    often = ExpandAndCrop(GREY, (1.0, 1.0), (0.6,) * 60, 0.3)
    windows = [often._sample_crop((0, 0, 60, 40), boxes, random.Random(seed))[0] for seed in range(30)]
    result = [window_ious(np.array([window]), boxes)[0, 0] for window in windows if window != (0, 0, 60, 40)]
    assert len(result) > 15 and np.mean(np.array(result) >= 0.6) > 0.8
    never = ExpandAndCrop(GREY, (1.0, 1.0), (0.9,), 0.3)
    for seed in range(15):
        image, target, _ = never(noise(), scene(), random.Random(seed))
        assert target is not None and len(target) >= 1 and image.shape[0] <= 40


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 200), (60, 40)])
def test_images_without_objects_and_tiny_ones(size: tuple[int, int]) -> None:
    """They end, and keep their one object if they have one."""
    step = ExpandAndCrop(GREY, (1.0, 4.0), (0.1, 0.9), 0.3)
    for seed in range(20):
        for target in (
            None,
            BoxList(torch.zeros(0, 4), size),
            BoxList([[0, 0, size[0] - 1, size[1] - 1]], size),
        ):
            result, changed, _ = step(noise(*size), target, random.Random(seed))
            assert min(result.shape[:2]) >= 1
            if changed is None or target is None:
                assert changed is target
            else:
                assert len(changed) == len(target) and changed.size == (result.shape[1], result.shape[0])


def test_built_from_a_config() -> None:
    """Training alone has it, always at the fixed size; flipped views for stored outputs do not."""
    cfg = get_cfg()
    fixed = ["INPUT.FIXED_SIZE_TRAIN", (48, 32), "INPUT.FIXED_SIZE_TEST", (48, 32)]
    cfg.merge_from_list(["INPUT.SSD_AUG.ENABLED", True, *fixed, "INPUT.INTERPOLATION", "opencv"])
    train = build_transforms(cfg, train=True)
    results = [train(noise(), scene(), random.Random(seed)) for seed in (*range(30), 4)]
    assert all(image.shape == (3, 32, 48) and target.size == (48, 32) for image, target, _ in results)
    assert torch.equal(results[4][0], results[-1][0]) and torch.equal(results[4][1].bbox, results[-1][1].bbox)
    assert len({len(target) for _, target, _ in results}) > 1
    assert {there.scale_x < 0 for *_, there in results} == {True, False}
    for image, target, there in results:
        mapped = BoxList(there.boxes(scene().bbox), (48, 32)).clip_to_image(remove_empty=False).bbox
        for box in target.bbox:  # but for the pixel that clipping before the resize leaves
            assert (mapped - box).abs().amax(dim=1).min() <= 48 / 17 + 1
        assert image.is_contiguous() and torch.isfinite(image).all() and len(target) >= 1
        bitmaps = target.get_field("masks").to_bitmaps()
        for bits, box in zip(bitmaps, target.bbox, strict=True):
            rows, columns = bits.nonzero(as_tuple=True)
            inside = torch.tensor([columns.min(), rows.min(), columns.max(), rows.max()])
            assert (inside - box).abs().max() <= 48 / 17 + 1
    plain = build_transforms(cfg, train=False)(noise(), None, random.Random(0))[0]
    stored = build_transforms(cfg, train=True, flip_prob=0.0)(noise(), None, random.Random(7))[0]
    assert torch.equal(plain, stored)


def test_the_canvas_is_zero_for_the_network() -> None:
    """The mean colour in the order of the network's channels, whatever the order and scale."""
    for order in (True, False):
        cfg = get_cfg()
        mean = [102.0, 115.0, 122.0] if order else [0.4, 0.5, 0.6]
        cfg.merge_from_list(
            ["INPUT.SSD_AUG.ENABLED", True, "INPUT.TO_BGR255", order, "INPUT.PIXEL_MEAN", mean]
        )
        cfg.merge_from_list(["INPUT.SSD_AUG.EXPAND_RANGE", (3.0, 4.0), "INPUT.MIN_SIZE_TRAIN", (64,)])
        steps = build_transforms(cfg, train=True)
        shares = [
            float((steps(noise(), None, random.Random(s))[0].abs() < 1e-3).all(0).float().mean())
            for s in range(20)
        ]
        assert max(shares) > 0.5


def test_batches_of_a_loader(
    make: Callable[..., DetectionDataset], raw: dict[str, Any], tmp_path: Any
) -> None:
    """Portrait and landscape, grouped by aspect ratio and not: every batch has the fixed size."""
    cfg = get_cfg()
    cfg.merge_from_list(["INPUT.SSD_AUG.ENABLED", True, "INPUT.FIXED_SIZE_TRAIN", (48, 32)])
    cfg.merge_from_list(["SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 4, "DATALOADER.NUM_WORKERS", 0])
    Image.new("RGB", (40, 50)).save(tmp_path / "12.jpg")
    raw["images"][2].update(width=40, height=50)
    raw["annotations"][3]["segmentation"]["size"] = [50, 40]
    data = make(raw, transforms=build_transforms(cfg, train=True))
    for grouped in (True, False):
        cfg.DATALOADER.ASPECT_RATIO_GROUPING = grouped
        batches = list(build.build_train_loader(cfg, data))
        assert len(batches) == 4 and all(b.images.tensors.shape == (2, 3, 32, 48) for b in batches)
        assert {size for b in batches for size in b.images.original_sizes} == {(40, 50), (50, 40)}
    first, second = data[SampleKey(0, 0, 1)], data[SampleKey(0, 0, 2)]
    assert not torch.equal(first.image, second.image)
    assert torch.equal(first.image, data[SampleKey(0, 0, 1)].image)
