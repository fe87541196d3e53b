"""Transforms from the INPUT node of a config."""

from __future__ import annotations

from typing import Any

from maskrcnn_benchmark.data.transforms.compose import Compose, Transform
from maskrcnn_benchmark.data.transforms.geometry import RandomHorizontalFlip, RandomVerticalFlip, Resize
from maskrcnn_benchmark.data.transforms.pixels import ColorJitter, ToNormalizedTensor
from maskrcnn_benchmark.data.transforms.sizes import SizeRule
from maskrcnn_benchmark.data.transforms.ssd import ExpandAndCrop, PhotometricDistortion
from maskrcnn_benchmark.data.transforms.views import TestViews, view_specs


def build_transforms(cfg: Any, train: bool, flip_prob: float | None = None) -> Compose:
    """Build the training or test transforms of `cfg.INPUT`.

    `flip_prob` overrides the probability of the left-right flip (1.0: every image is flipped) and switches
    off the other random transforms of training, for outputs of the teacher in a fixed view.
    """
    inputs = cfg.INPUT
    augment = train and flip_prob is None
    steps: list[Transform] = []
    if augment and any((inputs.BRIGHTNESS, inputs.CONTRAST, inputs.SATURATION, inputs.HUE)):
        steps.append(ColorJitter(inputs.BRIGHTNESS, inputs.CONTRAST, inputs.SATURATION, inputs.HUE))
    if augment and inputs.SSD_AUG.ENABLED:
        steps += _ssd_augmentation(cfg)
    steps.append(Resize(SizeRule.from_cfg(cfg, train)))
    horizontal = inputs.HORIZONTAL_FLIP_PROB_TRAIN if augment else (flip_prob or 0.0)
    if horizontal > 0:
        steps.append(RandomHorizontalFlip(horizontal))
    if augment and inputs.VERTICAL_FLIP_PROB_TRAIN > 0:
        steps.append(RandomVerticalFlip(inputs.VERTICAL_FLIP_PROB_TRAIN))
    steps.append(_to_tensor(cfg))
    return Compose(steps)


def build_test_transforms(cfg: Any) -> Compose:
    """Build the test transforms; with TEST.BBOX_AUG.ENABLED an image becomes a list of views."""
    if cfg.TEST.BBOX_AUG.ENABLED:
        return TestViews(view_specs(cfg), _to_tensor(cfg))
    return build_transforms(cfg, train=False)


def _ssd_augmentation(cfg: Any) -> list[Transform]:
    node, mean = cfg.INPUT.SSD_AUG, cfg.INPUT.PIXEL_MEAN
    red_green_blue = mean[::-1] if cfg.INPUT.TO_BGR255 else [255 * value for value in mean]
    return [
        PhotometricDistortion(
            node.BRIGHTNESS_DELTA, node.CONTRAST_RANGE, node.SATURATION_RANGE, node.HUE_DELTA
        ),
        ExpandAndCrop(red_green_blue, node.EXPAND_RANGE, node.CROP_MIN_IOUS, node.CROP_MIN_SIDE),
    ]


def _to_tensor(cfg: Any) -> ToNormalizedTensor:
    return ToNormalizedTensor(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD, cfg.INPUT.TO_BGR255)
