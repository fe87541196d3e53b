"""Keypoint head: targets, loss, decoding, any number of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.inference import (
    bicubic_matrix,
    heatmaps_to_keypoints,
)
from maskrcnn_benchmark.modeling.roi_heads.keypoint_head.loss import (
    has_keypoint_in_box,
    keypoint_loss,
    keypoints_to_heatmap,
)
from maskrcnn_benchmark.structures import BoxList, Keypoints, to_image_list
from maskrcnn_benchmark.structures.model_input import ModelInput
from maskrcnn_benchmark.utils.errors import ConfigError, DataError, UsageError

KEYPOINTS = (
    *("MODEL.KEYPOINT_ON", True, "MODEL.MASK_ON", False, "MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES", 3),
    *("MODEL.ROI_KEYPOINT_HEAD.CONV_LAYERS", (8, 8), "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION", 7),
    *("MODEL.ROI_KEYPOINT_HEAD.RESOLUTION", 28, "MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO", 2),
    *("MODEL.ROI_KEYPOINT_HEAD.POOLER_SCALES", (0.25, 0.125, 0.0625, 0.03125)),
    *("MODEL.ROI_KEYPOINT_HEAD.SHARE_BOX_FEATURE_EXTRACTOR", False),
)
Batch = tuple[list[Tensor], list[BoxList]]


@pytest.fixture
def cfg(small_cfg: Callable[..., Any]) -> Any:
    """The small model with a keypoint head in the place of the mask head."""
    return small_cfg(*KEYPOINTS)


@pytest.fixture
def keypoint_batch(batch: Batch) -> Batch:
    """Two images with three keypoints in every box."""
    images, targets = batch
    for target in targets:
        x1, y1, x2, y2 = target.bbox.unbind(1)
        positions = [((2 * x1 + x2) / 3, y1), (x2, y2), (x1 - 50, y1)]
        points = torch.stack([torch.stack((x, y, torch.ones_like(x)), 1) for x, y in positions], 1)
        target.add_field("keypoints", Keypoints(points, target.size, (1, 0, 2)))
    return images, targets


def test_heatmap_indices_at_the_edges() -> None:
    """Left edge inside, right edge in the last cell, invalid beyond it and unlabelled, thin boxes finite."""
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    points = torch.tensor(
        [[[10, 20, 1], [30, 60, 2], [29.9, 20, 1], [30.1, 30, 2], [9.9, 30, 1], [15, 30, 0]]]
    )
    index, valid = keypoints_to_heatmap(points, boxes, 8)
    assert valid.tolist() == [[True, True, True, False, False, False]]
    assert index.tolist() == [[0, 63, 7, 0, 0, 0]]
    thin = torch.tensor([[5.0, 5.0, 5.0, 9.0]])
    index, valid = keypoints_to_heatmap(torch.tensor([[[5.0, 5.0, 1.0], [6.0, 5.0, 1.0]]]), thin, 8)
    assert valid.tolist() == [[True, False]] and index[0, 0] == 7


def test_objects_without_a_labelled_point_in_their_box_are_left_out(cfg: Any, keypoint_batch: Batch) -> None:
    target = BoxList([[0.0, 0.0, 10.0, 10.0]] * 3, (40, 40))
    points = torch.tensor([[[5, 5, 0.0], [50, 5, 2]], [[5, 5, 1], [0, 0, 0]], [[10, 10, 2], [0, 0, 0]]])
    target.add_field("keypoints", Keypoints(points, (40, 40), (0, 1)))
    assert has_keypoint_in_box(target).tolist() == [False, True, True]
    images, targets = keypoint_batch
    model = build_detection_model(cfg).train()
    for target in targets:
        target.get_field("keypoints").points[..., 2] = 0
    losses = model(images, targets)
    assert losses["loss_kp"] == 0
    losses["loss_kp"].backward()
    assert model.roi_heads.keypoint.predictor.kps_score_lowres.weight.grad is not None


def test_loss_is_the_mean_over_valid_keypoints() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 3, 8, 8, requires_grad=True)
    index, valid = torch.randint(64, (4, 3)), torch.rand(4, 3) > 0.4
    expected = [F.cross_entropy(logits[n, k].reshape(1, -1), index[n, k][None]) for n, k in valid.nonzero()]
    torch.testing.assert_close(keypoint_loss(logits, index, valid).mean(), torch.stack(expected).mean())
    assert keypoint_loss(logits, index, torch.zeros_like(valid)).mean() == 0


@pytest.mark.parametrize("size", [1, 7, 28, 56, 100])
def test_cubic_matrix_is_bicubic_resizing(size: int) -> None:
    maps = torch.randn(1, 2, 28, 28, dtype=torch.float64)
    expected = F.interpolate(maps, size=(size, 33), mode="bicubic", align_corners=False)
    down, across = (bicubic_matrix(28, side, maps.device).double() for side in (size, 33))
    torch.testing.assert_close(down @ maps @ across.t(), expected, rtol=0, atol=3e-6)


def test_decoding_finds_the_peak() -> None:
    """A peak in the middle of a cell is mapped into the image to within the cell."""
    boxes = torch.tensor([[10.0, 20.0, 66.0, 132.0], [5.0, 5.0, 5.0, 5.0]])
    maps = torch.zeros(2, 1, 56, 56)
    maps[:, 0, 30, 12] = 9.0
    points, logits = heatmaps_to_keypoints(maps, boxes)
    assert points[0, 0].tolist() == pytest.approx([10 + 12.5, 20 + 61, 1], abs=1.1)
    assert points[1, 0].tolist() == pytest.approx([5.5, 5.5, 1])
    assert logits[0, 0] > 7
    empty, none = heatmaps_to_keypoints(maps[:0], boxes[:0])
    assert empty.shape == (0, 1, 3) and none.shape == (0, 1)


def test_training_and_detection_of_two_images(cfg: Any, keypoint_batch: Batch) -> None:
    """One step gives finite losses and gradients; the images of a batch do not see each other."""
    torch.manual_seed(1)
    images, targets = keypoint_batch
    model = build_detection_model(cfg).train()
    losses = model(ModelInput(to_image_list(images), targets, seeds=[1, 2]))
    assert "loss_kp" in losses and losses["loss_kp"] > 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    model.eval()
    padded = [F.pad(image, (0, 96 - image.shape[2], 0, 96 - image.shape[1])) for image in images]
    both = model(padded)
    for image, found in zip(padded, both, strict=True):
        (alone,) = model([image])
        assert len(found) and found.get_field("keypoints").points.shape == (len(found), 3, 3)
        torch.testing.assert_close(found.bbox, alone.bbox, rtol=0, atol=1e-2)
        own, other = found.get_field("keypoint_logits"), alone.get_field("keypoint_logits")
        torch.testing.assert_close(own, other, rtol=0, atol=1e-3)


def test_images_without_objects(cfg: Any, make_target: Callable[..., BoxList]) -> None:
    target = make_target([], [], (96, 64))
    target.add_field("keypoints", Keypoints(torch.zeros(0, 3, 3), (96, 64), (0, 1, 2)))
    model = build_detection_model(cfg).train()
    losses = model([torch.randn(3, 64, 96)], [target])
    assert losses["loss_kp"] == 0 and torch.isfinite(torch.stack(list(losses.values()))).all()
    cfg.merge_from_list(["MODEL.ROI_HEADS.SCORE_THRESH", 0.999])
    (found,) = build_detection_model(cfg).eval()([torch.randn(3, 64, 96)])
    assert len(found) == 0 and found.get_field("keypoints").points.shape == (0, 3, 3)


def test_wrong_ground_truth_and_configs(cfg: Any, batch: Batch, keypoint_batch: Batch) -> None:
    images, targets = keypoint_batch
    four = build_detection_model(_with(cfg, "MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES", 4)).train()
    with pytest.raises(DataError, match="set MODEL.ROI_KEYPOINT_HEAD.NUM_CLASSES 3"):
        four(images, targets)
    bare = [target.copy_with_fields(["labels"]) for target in targets]
    with pytest.raises(DataError, match="no field 'keypoints'"):
        four(images, bare)
    with pytest.raises(ConfigError, match="SHARE_BOX_FEATURE_EXTRACTOR"):
        build_detection_model(_with(cfg, "MODEL.ROI_KEYPOINT_HEAD.SHARE_BOX_FEATURE_EXTRACTOR", True))
    with pytest.raises(ConfigError, match="KeypointRCNNPredictor"):
        build_detection_model(_with(cfg, "MODEL.ROI_KEYPOINT_HEAD.PREDICTOR", "KeypointPredictor"))
    model = build_detection_model(cfg).eval()
    torch.nn.init.constant_(model.roi_heads.keypoint.predictor.kps_score_lowres.bias, float("nan"))
    with pytest.raises(UsageError, match="heat maps"):
        model(images)


def _with(cfg: Any, *pairs: Any) -> Any:
    changed = cfg.clone()
    changed.merge_from_list(list(pairs))
    return changed
