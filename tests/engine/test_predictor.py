"""Inference over a loader and on single images, with models that answer from a script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.data.transforms import build_test_transforms, build_transforms
from maskrcnn_benchmark.engine.frames import read_image_file
from maskrcnn_benchmark.engine.inference import inference
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.keypoints import Keypoints
from maskrcnn_benchmark.structures.views import ViewList
from maskrcnn_benchmark.utils.errors import ConfigError, DataError

CPU = torch.device("cpu")


class Scripted(nn.Module):
    """Finds the middle half of every image twice, with the scores given."""

    def __init__(
        self, scores: Sequence[float] = (0.2, 0.9), masks: bool = True, keypoints: bool = False
    ) -> None:
        super().__init__()
        self.scores = torch.tensor(scores)
        self.masks = masks
        self.keypoints = keypoints
        self.seen: list[tuple[int, ...]] = []
        self.originals: list[tuple[int, int]] = []

    def forward(self, images: ImageList) -> list[BoxList]:
        """One BoxList per image."""
        assert not self.training and not torch.is_grad_enabled()
        self.seen.append(tuple(images.tensors.shape))
        self.originals += images.original_sizes
        found = []
        for height, width in images.image_sizes:
            box = torch.tensor([width / 4, height / 4, 3 * width / 4 - 1, 3 * height / 4 - 1])
            boxes = BoxList(box.repeat(len(self.scores), 1), (width, height))
            boxes.add_field("scores", self.scores)
            boxes.add_field("labels", torch.arange(1, len(self.scores) + 1))
            if self.masks:
                boxes.add_field("mask", torch.ones(len(self.scores), 1, 28, 28))
            if self.keypoints:
                corners = torch.cat((boxes.bbox[:, None, :2], torch.ones(len(boxes), 1, 1)), dim=2)
                boxes.add_field("keypoints", Keypoints(corners, (width, height), (0,)))
                boxes.add_field("keypoint_logits", torch.arange(len(boxes))[:, None].float())
            found.append(boxes)
        return found


def _predictor(model: nn.Module) -> Predictor:
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 32, 64
    transform = build_transforms(cfg, train=False)
    return Predictor(model, transform=transform, device=CPU, size_divisible=32)


def test_keypoints_come_back_to_the_original_size() -> None:
    found = _predictor(Scripted(masks=False, keypoints=True))(Image.new("RGB", (120, 80)))
    points = found.get_field("keypoints")
    assert points.size == (120, 80) and found.get_field("keypoint_logits").flatten().tolist() == [1, 0]
    assert torch.allclose(points.points[:, 0, :2], found.bbox[:, :2])


def test_views_of_a_image_reach_the_model() -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["TEST.BBOX_AUG.ENABLED", True, "TEST.BBOX_AUG.H_FLIP", True])
    cfg.merge_from_list(["INPUT.MIN_SIZE_TEST", 32, "INPUT.MAX_SIZE_TEST", 64])
    kinds: list[int] = []

    class Watching(Scripted):
        def forward(self, images: ImageList) -> list[BoxList]:
            kinds.append(len(images.views()) if isinstance(images, ViewList) else 0)
            return super().forward(images)

    predictor = Predictor(Watching(), transform=build_test_transforms(cfg), device=CPU)
    assert predictor(Image.new("RGB", (60, 40))).size == (60, 40) and kinds == [2]


def test_models_without_classes_are_refused() -> None:
    cfg = get_cfg()
    cfg.MODEL.RPN_ONLY = True
    with pytest.raises(ConfigError, match=r"MODEL\.RPN_ONLY"):
        Predictor.from_config(cfg, "none.pth")


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_predictions_are_at_the_original_size_best_first(mode: str) -> None:
    model = Scripted()
    found = _predictor(model)(Image.new(mode, (80, 40)))
    assert model.seen == [(1, 3, 32, 64)] and model.originals == [(40, 80)]
    assert found.size == (80, 40) and found.mode == "xyxy"
    assert found.get_field("scores").tolist() == pytest.approx([0.9, 0.2])
    assert found.get_field("labels").tolist() == [2, 1]
    masks = found.get_field("masks")
    assert masks.shape == (2, 40, 80) and masks.dtype == torch.bool
    inside = torch.zeros(40, 80, dtype=torch.bool)
    inside[10:30, 20:60] = True
    assert (masks[0] != inside).float().mean() < 0.06


def test_no_detections_and_no_masks() -> None:
    empty = _predictor(Scripted(scores=()))(Image.new("RGB", (80, 40)))
    assert len(empty) == 0 and empty.get_field("masks").shape == (0, 40, 80)
    assert not _predictor(Scripted(masks=False))(Image.new("RGB", (80, 40))).has_field("masks")


def test_masks_of_the_images_size_are_taken_as_they_are() -> None:
    pixels = torch.zeros(2, 1, 40, 80, dtype=torch.bool)
    pixels[0, 0, 5, 7] = pixels[1, 0, 30, 70] = True

    class FullSize(Scripted):
        def forward(self, images: ImageList) -> list[BoxList]:
            found = super().forward(images)
            found[0].add_field("mask", pixels)
            found[0].add_field("mask_scores", torch.tensor([0.1, 0.8]))
            return found

    found = _predictor(FullSize())(Image.new("RGB", (80, 40)))
    assert torch.equal(found.get_field("masks"), pixels[:, 0].flip(0))  # best first
    assert found.get_field("mask_scores").tolist() == pytest.approx([0.8, 0.1])


def test_weak_objects_are_dropped_before_their_masks_are_made() -> None:
    predictor = _predictor(Scripted())
    predictor.min_score = 0.5
    found = predictor(Image.new("RGB", (80, 40)))
    assert found.get_field("labels").tolist() == [2] and found.get_field("masks").shape == (1, 40, 80)


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(good)
    assert read_image_file(good).mode == "RGB"
    broken = tmp_path / "broken.png"
    broken.write_bytes(good.read_bytes()[:40])
    for path in (broken, tmp_path / "missing.png"):
        with pytest.raises(DataError, match=path.name):
            read_image_file(path)


def test_inference_feeds_every_image_and_restores_the_mode() -> None:
    calls: list[tuple] = []
    evaluator = SimpleNamespace(
        reset=lambda: calls.append(("reset",)),
        process=lambda ids, found: calls.append((ids, [len(f) for f in found])),
        evaluate=lambda: "report",
    )
    loader = [
        SimpleNamespace(images=ImageList(torch.zeros(n, 3, 8, 8), [(8, 8)] * n), image_ids=list(range(n)))
        for n in (2, 1)
    ]
    model = Scripted().train()
    assert inference(model, loader, evaluator, CPU, "testing") == "report"
    assert calls == [("reset",), ([0, 1], [2, 2]), ([0], [2])]
    assert model.training


class FullMasks(Scripted):
    """Answers with masks of the whole image file and scores of their own for them."""

    def forward(self, images: ImageList) -> list[BoxList]:
        """The left half of every image file for the first, nothing for the second detection."""
        found = super().forward(images)
        for boxes, (height, width) in zip(found, images.original_sizes, strict=True):
            masks = torch.zeros(len(boxes), 1, height, width, dtype=torch.bool)
            masks[:1, :, :, : width // 2] = True
            boxes.add_field("mask", masks)
            boxes.add_field("mask_scores", torch.linspace(0.1, 0, len(boxes)))
        return found


@pytest.mark.parametrize("size", [(80, 40), (41, 33)])
def test_masks_of_the_whole_image_stay_as_they_are(size: tuple[int, int]) -> None:
    found = _predictor(FullMasks(masks=False))(Image.new("RGB", size))
    masks = found.get_field("masks")
    assert masks.shape == (2, size[1], size[0]) and masks.dtype == torch.bool
    assert not masks[0].any() and masks[1, :, : size[0] // 2].all() and not masks[1, :, size[0] // 2 :].any()
    assert found.get_field("mask_scores").tolist() == pytest.approx([0, 0.1])
    empty = _predictor(FullMasks(scores=(), masks=False))(Image.new("RGB", size))
    assert empty.get_field("masks").shape == (0, size[1], size[0])
