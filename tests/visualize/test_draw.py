"""Detections drawn on images: what is visible, what is left out, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.keypoints import Keypoints
from maskrcnn_benchmark.utils.errors import DataError
from maskrcnn_benchmark.visualize.colors import label_color
from maskrcnn_benchmark.visualize.draw import draw_detections

NAMES = ["__background__", "cup", "spoon"]


def detections(scores: list[float] | None = None, masks: bool = True) -> BoxList:
    """Two objects on an image of 80 x 60."""
    boxes = BoxList([[10.0, 10.0, 40.0, 40.0], [50.0, 20.0, 70.0, 50.0]], (80, 60))
    boxes.add_field("labels", torch.tensor([1, 2]))
    if scores is not None:
        boxes.add_field("scores", torch.tensor(scores))
    if masks:
        pixels = torch.zeros(2, 60, 80, dtype=torch.bool)
        pixels[0, 15:35, 15:35] = True
        pixels[1, 25:45, 55:65] = True
        boxes.add_field("masks", pixels)
    return boxes


def test_masks_are_blended_inside_and_only_there() -> None:
    image = Image.new("RGB", (80, 60), (200, 200, 200))
    drawn = np.asarray(draw_detections(image, detections([0.9, 0.8]), NAMES, opacity=0.5), dtype=int)
    expected = (200 + np.array(label_color(1))) / 2
    assert abs(drawn[28, 22] - expected).max() <= 1
    assert (drawn[58, 5] == 200).all()
    assert tuple(drawn[15, 20]) == label_color(1)  # outline of the mask
    assert tuple(drawn[30, 10]) == label_color(1)  # side of the box
    assert image.getpixel((22, 28)) == (200, 200, 200)  # the input is left alone


def test_keypoints_are_discs_in_the_class_colour() -> None:
    prediction = detections([0.9, 0.1], masks=False)
    points = torch.tensor([[[20.0, 25.0, 1.0], [30.0, 35.0, 0.0]], [[60.0, 30.0, 1.0], [62.0, 40.0, 1.0]]])
    prediction.add_field("keypoints", Keypoints(points, (80, 60), (0, 1)))
    drawn = np.asarray(draw_detections(Image.new("RGB", (80, 60)), prediction, NAMES))
    assert tuple(drawn[25, 20]) == label_color(1)
    assert not drawn[35, 30].any() and not drawn[30, 60].any()  # not visible, and below the threshold


def test_low_scores_and_the_limit() -> None:
    image = Image.new("RGB", (80, 60))
    one = np.asarray(draw_detections(image, detections([0.9, 0.2]), NAMES))
    assert not (one == np.array(label_color(2))).all(axis=2).any()
    best = np.asarray(draw_detections(image, detections([0.6, 0.9]), NAMES, max_detections=1))
    assert not (best == np.array(label_color(1))).all(axis=2).any()
    nothing = draw_detections(image, detections([0.1, 0.1]), NAMES)
    assert not np.asarray(nothing).any()


def test_ground_truth_greyscale_and_enlargement() -> None:
    drawn = draw_detections(Image.new("L", (80, 60)), detections(), NAMES, scale=3)
    assert drawn.size == (240, 180) and drawn.mode == "RGB"
    assert tuple(np.asarray(drawn)[100, 30]) == label_color(1)


def test_empty_prediction_and_odd_boxes() -> None:
    empty = BoxList(torch.zeros(0, 4), (80, 60))
    empty.add_field("labels", torch.zeros(0, dtype=torch.int64))
    assert draw_detections(Image.new("RGB", (80, 60)), empty, NAMES).size == (80, 60)
    odd = BoxList([[70.0, 50.0, 20.0, 10.0], [-30.0, -30.0, 300.0, 300.0]], (80, 60))
    odd.add_field("labels", torch.tensor([1, 2]))
    assert draw_detections(Image.new("RGB", (80, 60)), odd, NAMES).size == (80, 60)


def test_clear_refusals() -> None:
    with pytest.raises(DataError, match=r"image is \(60, 80\)"):
        draw_detections(Image.new("RGB", (60, 80)), detections(), NAMES)
    with pytest.raises(DataError, match="label 2 has no name"):
        draw_detections(Image.new("RGB", (80, 60)), detections(), NAMES[:2])
