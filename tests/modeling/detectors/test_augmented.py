"""Test-time augmentation: views joined before NMS, masks and keypoints from the plain view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.detectors.augmented import AugmentedDetector, model_for_testing
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.structures import FLIP_LEFT_RIGHT, BoxList, to_image_list
from maskrcnn_benchmark.structures.views import View, ViewList, batch_images
from maskrcnn_benchmark.utils.errors import ConfigError, UsageError

Cfg = Callable[..., Any]


def _detector(cfg: Any) -> AugmentedDetector:
    torch.manual_seed(3)
    return AugmentedDetector(build_detection_model(cfg).eval())


def _image(seed: int = 0) -> Tensor:
    return torch.randn(3, 64, 96, generator=torch.Generator().manual_seed(seed))


def _same(detections: BoxList, other: BoxList) -> None:
    """Equal sets of boxes with equal scores and labels."""
    assert len(detections) == len(other) > 0
    orders = [
        boxes.get_field("scores").argsort(descending=True, stable=True) for boxes in (detections, other)
    ]
    first, second = detections[orders[0]], other[orders[1]]
    torch.testing.assert_close(first.bbox, second.bbox, rtol=0, atol=2e-3)
    torch.testing.assert_close(first.get_field("scores"), second.get_field("scores"), rtol=0, atol=1e-5)
    assert torch.equal(first.get_field("labels"), second.get_field("labels"))


@pytest.mark.parametrize("agnostic", [False, True])
def test_one_view_is_ordinary_detection(small_cfg: Cfg, agnostic: bool) -> None:
    detector = _detector(small_cfg("MODEL.CLS_AGNOSTIC_BBOX_REG", agnostic))
    images = [_image(0), _image(1)]
    views = batch_images([[View(p, False)] for p in images], 32)
    for detections, plain in zip(detector(views), detector.detector(to_image_list(images, 32)), strict=True):
        assert torch.equal(detections.bbox, plain.bbox)
        assert torch.equal(detections.get_field("scores"), plain.get_field("scores"))
        assert torch.equal(detections.get_field("mask"), plain.get_field("mask"))


def test_a_flipped_image_gives_flipped_detections(small_cfg: Cfg) -> None:
    """Seen plain and flipped, both images show the same two views. No limit: ties are not cut."""
    detector = _detector(small_cfg("MODEL.MASK_ON", False, "MODEL.ROI_HEADS.DETECTIONS_PER_IMG", 0))
    image = _image()
    both = [[View(p, False), View(p.flip(2), True)] for p in (image, image.flip(2))]
    detections, flipped = (detector(batch_images([views], 32))[0] for views in both)
    _same(detections, flipped.transpose(FLIP_LEFT_RIGHT))


def test_views_of_other_sizes_come_back_to_the_plain_one(small_cfg: Cfg) -> None:
    """A view of twice the size joins; all boxes lie in the plain image, and masks belong to them."""
    detector = _detector(small_cfg("MODEL.ROI_HEADS.SCORE_THRESH", 0.1))
    image = _image()
    large = torch.nn.functional.interpolate(image[None], scale_factor=2.0)[0]
    views = batch_images([[View(image, False), View(large, False), View(large.flip(2), True)]], 32)
    (detections,) = detector(views)
    alone = detector(batch_images([[View(image, False)]], 32))[0]
    assert detections.size == (96, 64) and bool((detections.bbox >= 0).all())
    assert bool((detections.bbox[:, 2] <= 95.5).all()) and bool((detections.bbox[:, 3] <= 63.5).all())
    assert not torch.equal(detections.bbox, alone.bbox)
    features = detector.detector.features(to_image_list([image], 32))
    bare = detections.copy_with_fields(["scores", "labels"])
    (again,) = detector.heads.forward_with_given_boxes(features, [bare])
    assert torch.equal(detections.get_field("mask"), again.get_field("mask"))


def test_what_cannot_work(small_cfg: Cfg) -> None:
    cfg = small_cfg("MODEL.RPN_ONLY", True, "TEST.BBOX_AUG.ENABLED", True)
    with pytest.raises(ConfigError, match=r"TEST\.BBOX_AUG\.ENABLED"):
        model_for_testing(cfg, build_detection_model(cfg))
    detector = _detector(small_cfg())
    assert model_for_testing(small_cfg(), detector.detector) is detector.detector
    with pytest.raises(ValueError, match="ViewList"):
        detector(to_image_list([_image()]))
    with pytest.raises(UsageError, match="not finite"):
        detector(batch_images([[View(_image() * float("nan"), False)]], 32))


def test_view_lists() -> None:
    """Every view is padded by itself; views must agree over the images."""
    small, large = torch.ones(3, 10, 12), torch.ones(3, 20, 24)
    views = batch_images(
        [[View(small, False), View(large, True)], [View(large, False), View(small, True)]], 8
    )
    assert isinstance(views, ViewList) and len(views) == 2
    plain, other = views.to("cpu").views()
    assert [[g.flipped for g in view.geometry] for view in (plain, other)] == [[False] * 2, [True] * 2]
    assert plain.image_sizes == [(10, 12), (20, 24)] and other.image_sizes == [(20, 24), (10, 12)]
    assert plain.tensors.shape == (2, 3, 24, 24)
    with pytest.raises(ValueError, match="same views"):
        batch_images([[View(small, False)], [View(small, False), View(large, True)]])
    with pytest.raises(ValueError, match="first of them plain"):
        batch_images([[View(small, True)]])
    with pytest.raises(ValueError, match="same images"):
        ViewList(plain, [to_image_list([small])])
