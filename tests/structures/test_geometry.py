"""Geometry of images: resize, flip and padding, there and back, and in agreement with BoxList."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.structures import FLIP_LEFT_RIGHT, BoxList, ImageList
from maskrcnn_benchmark.structures.geometry import AffineMap
from maskrcnn_benchmark.structures.views import View, ViewList, batch_images

SIZES = [((480, 640), (480, 640)), ((480, 640), (800, 1067)), ((97, 31), (64, 20)), ((1, 1), (13, 7))]


def _boxes(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    corners = torch.rand(20, 2, 2, generator=generator, dtype=torch.float64) * torch.tensor([width, height])
    return torch.cat((corners.amin(dim=1), corners.amax(dim=1)), dim=1)


@pytest.mark.parametrize(("original", "size"), SIZES)
@pytest.mark.parametrize("flipped", [False, True])
def test_maps_go_there_and_back_and_agree_with_boxlist(
    original: tuple[int, int], size: tuple[int, int], flipped: bool
) -> None:
    boxes = _boxes(*original)
    there = AffineMap.of_resize(original, size, flipped=flipped)
    torch.testing.assert_close(there.inverse().boxes(there.boxes(boxes)), boxes, rtol=0, atol=1e-9)
    torch.testing.assert_close(there.inverse().points(there.points(boxes[:, :2])), boxes[:, :2])
    expected = BoxList(boxes, (original[1], original[0])).resize((size[1], size[0]))
    if flipped:
        expected = expected.transpose(FLIP_LEFT_RIGHT)
    torch.testing.assert_close(there.boxes(boxes).float(), expected.bbox.float(), rtol=1e-6, atol=1e-3)
    mapped = there.boxes(boxes)
    assert (mapped[:, :2] <= mapped[:, 2:]).all()


def test_maps_join_in_order() -> None:
    double, shift = AffineMap(2, 3), AffineMap(shift_x=5, shift_y=7)
    point = torch.tensor([[1.0, 1.0]])
    assert double.then(shift).points(point).tolist() == [[7, 10]]
    assert shift.then(double).points(point).tolist() == [[12, 24]]
    flip = AffineMap.of_resize((4, 10), (4, 10), flipped=True)
    assert flip.then(flip) == AffineMap() and AffineMap().inverse() == AffineMap()


def test_geometry_of_a_padded_batch() -> None:
    images = [torch.ones(3, 30, 41), torch.ones(3, 33, 20)]
    files = [(60, 82), (99, 60)]
    maps = [AffineMap.of_resize(files[0], (30, 41)), AffineMap.of_resize(files[1], (33, 20), flipped=True)]
    batch = batch_images(images, 32, files, maps=maps)
    first, second = batch.geometry
    assert (first.input_size, first.padded_size, first.original_size) == ((30, 41), (64, 64), (60, 82))
    assert first.scale == (0.5, 0.5) and not first.flipped and second.flipped
    assert second.scale == pytest.approx((1 / 3, 1 / 3))
    corner = second.to_input.points(torch.tensor([0.0, 0.0]))
    assert corner.tolist() == [19, 0] and second.to_original.points(corner).tolist() == [0, 0]
    assert batch.to("cpu").geometry == batch.geometry


def test_given_maps_are_kept() -> None:
    given = AffineMap(0.5, 0.5)  # the factor that was asked for, not that of the rounded sizes
    batch = ImageList(torch.zeros(1, 3, 8, 8), [(8, 7)], [(15, 15)], maps=[given])
    assert batch.geometry[0].to_input == given and batch.to("cpu").geometry[0].scale == (0.5, 0.5)
    with pytest.raises(ValueError, match="2 maps do not go with 1 images"):
        ImageList(torch.zeros(1, 3, 8, 8), [(8, 7)], maps=[given, given])


def test_views_know_their_geometry() -> None:
    small, large = torch.ones(3, 10, 12), torch.ones(3, 20, 24)
    views = batch_images([[View(small, False), View(large, True)]], 0, [(40, 48)])
    assert isinstance(views, ViewList)
    for view, (scale, flipped) in zip(views.to("cpu").views(), [(0.25, False), (0.5, True)], strict=True):
        (geometry,) = view.geometry
        assert (geometry.scale, geometry.flipped) == ((scale, scale), flipped)
    plain, other = (view.geometry[0] for view in views.views())
    for x, y in product((0.0, 3.5, 47.0), (0.0, 39.0)):
        point = torch.tensor([x, y])
        in_plain, in_other = plain.to_input.points(point), other.to_input.points(point)
        torch.testing.assert_close(plain.to_original.points(in_plain), point)
        torch.testing.assert_close(other.to_original.points(in_other), point)
