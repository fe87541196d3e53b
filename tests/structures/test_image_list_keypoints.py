"""Padding of batches and keypoint geometry."""

from __future__ import annotations

import pytest
import torch

from maskrcnn_benchmark.structures import FLIP_TOP_BOTTOM, ImageList, Keypoints, to_image_list
from maskrcnn_benchmark.structures.views import View, ViewList, batch_images


def test_padding_to_multiple() -> None:
    """Right and bottom are zero, sizes are (height, width), pixels stay."""
    images = [torch.ones((3, 30, 41)), torch.ones((3, 33, 20))]
    batch = to_image_list(images, 32)
    assert batch.tensors.shape == (2, 3, 64, 64) and batch.image_sizes == [(30, 41), (33, 20)]
    assert batch.tensors[0].sum() == images[0].sum() and batch.tensors[0, :, :30, :41].all()
    assert to_image_list(images).tensors.shape == (2, 3, 33, 41)
    assert to_image_list(batch, 64) is batch


def test_one_image_and_stacked_batch() -> None:
    """A (C,H,W) and a (B,C,H,W) tensor are taken; a 1x1 image pads to the multiple."""
    assert to_image_list(torch.ones((3, 1, 1)), 32).tensors.shape == (1, 3, 32, 32)
    assert to_image_list(torch.ones((2, 3, 5, 7))).image_sizes == [(5, 7), (5, 7)]


def test_bad_batches() -> None:
    """Nothing, other channels, other counts."""
    with pytest.raises(ValueError, match="at least one"):
        to_image_list([])
    with pytest.raises(ValueError, match="equal C"):
        to_image_list([torch.ones((3, 4, 4)), torch.ones((1, 4, 4))])
    with pytest.raises(ValueError, match="does not go with"):
        ImageList(torch.ones((2, 3, 4, 4)), [(4, 4)])
    with pytest.raises(ValueError, match="3 original sizes"):
        to_image_list([torch.ones((3, 4, 4))], 0, [(4, 4)] * 3)


def test_original_sizes_stay_with_the_batch() -> None:
    """Given or those of the images; on another device, padded, in views and alone."""
    images, files = [torch.ones((3, 8, 9)), torch.ones((3, 7, 9))], [(80, 90), (71, 93)]
    assert to_image_list(images).original_sizes == [(8, 9), (7, 9)]
    assert ImageList(torch.ones((1, 3, 8, 8)), [(5, 6)]).original_sizes == [(5, 6)]
    assert to_image_list(images, 32, files).to("cpu").original_sizes == files
    assert to_image_list(images[:1], 0, files[:1]).original_sizes == files[:1]
    plain = batch_images(images, 32, files)
    assert plain.original_sizes == files and plain.image_sizes == [(8, 9), (7, 9)]
    views = batch_images([[View(p, False), View(p.flip(2), True)] for p in images], 32, files)
    assert isinstance(views, ViewList)
    for batch in (views, views.to("cpu"), *views.to("cpu").views()):
        assert batch.original_sizes == files


def test_keypoint_flip_swaps_sides() -> None:
    """Left and right are swapped, invisible points become zero, twice is the identity."""
    points = torch.zeros((1, 17, 3))
    points[0, 5] = torch.tensor([10.0, 20.0, 2.0])
    points[0, 6] = torch.tensor([3.0, 4.0, 0.0])
    keypoints = Keypoints(points, (100, 50))
    flipped = keypoints.transpose(0)
    assert flipped.points[0, 6].tolist() == [89, 20, 2] and flipped.points[0, 5].tolist() == [0, 0, 0]
    assert flipped.transpose(0).points[0, 5].tolist() == [10, 20, 2]
    assert keypoints.resize((200, 150)).points[0, 5].tolist() == [20, 60, 2]
    assert len(Keypoints.cat([keypoints, flipped])[[1]]) == 1
    with pytest.raises(ValueError, match="VERTICAL_FLIP"):
        keypoints.transpose(FLIP_TOP_BOTTOM)
