"""Predictor: detections of single images at their own size."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from PIL import Image
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.download import fetch, is_url
from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.checkpoint.load import load_weights
from maskrcnn_benchmark.config.catalog import resolve_weight
from maskrcnn_benchmark.config.models import model_family
from maskrcnn_benchmark.data.datasets.image_decoding import ImageOptions, to_rgb
from maskrcnn_benchmark.data.transforms.build import build_test_transforms
from maskrcnn_benchmark.engine.launch import rank_device
from maskrcnn_benchmark.layers.masks import image_masks
from maskrcnn_benchmark.modeling.detectors.augmented import model_for_testing
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.solver.precision import Precision
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.class_list import BACKGROUND, ClassList
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.views import batch_images
from maskrcnn_benchmark.utils.errors import ConfigError
from maskrcnn_benchmark.utils.rng import seed_all


def stored_classes(weights: str, num_classes: int) -> tuple[list[str], list[int]]:
    """Read names and category ids by label, background first, from a checkpoint (path or URL).

    A checkpoint without them (published files), or with another number of them, gives the labels as names and
    ids. Raises CheckpointError for ids that are not one per name.
    """
    # the checksums are compared when the weights themselves are read
    stored = read_checkpoint(fetch(weights) if is_url(weights) else weights, "meta", verify=False)
    classes = ClassList.stored(stored, f"checkpoint {weights}")
    labels = list(range(num_classes))
    if classes is None or len(classes) + 1 != num_classes:
        return list(map(str, labels)), labels
    return [BACKGROUND, *classes.names], labels if classes.ids is None else [0, *classes.ids]


class Predictor:
    """Callable that maps a PIL image of any size and mode to detections at that size."""

    def __init__(
        self,
        model: nn.Module,
        *,
        transform: Callable,
        device: torch.device,
        size_divisible: int = 0,
        precision: Precision | None = None,
        min_score: float = 0.0,
        depth_range: tuple[float, ...] = (),
    ) -> None:
        """`transform`: test transform of `data.transforms`. `model` is moved and put into eval mode.

        Detections scored below `min_score` are dropped before their masks are made. `depth_range`: see
        `to_rgb`.
        """
        self.model = model.to(device).eval()
        self.transform = transform
        self.device = device
        self.size_divisible = size_divisible
        self.min_score = min_score
        self.depth_range = depth_range
        self.precision = precision or Precision(torch.float32, device)

    @classmethod
    def from_config(cls, cfg: CfgNode, weights: str | None) -> Predictor:
        """Build the model of `cfg` and load a checkpoint (path, URL or catalog name).

        None leaves the initial weights of cfg.SEED, for measurements of speed.
        """
        family = model_family(cfg)
        if family.classes_key is None:
            raise ConfigError(
                f"the model of {family.chosen_by(cfg)} predicts proposals without classes; "
                f"set {family.undo(cfg)}"
            )
        seed_all(cfg.SEED, "model")
        model = build_detection_model(cfg)
        if weights is not None:
            path = resolve_weight(cfg, weights)
            load_weights(model, path, conv_body=cfg.MODEL.BACKBONE.CONV_BODY, complete=True)
        device = rank_device(cfg.MODEL.DEVICE)
        return cls(
            model_for_testing(cfg, model),
            transform=build_test_transforms(cfg),
            device=device,
            size_divisible=cfg.DATALOADER.SIZE_DIVISIBILITY,
            precision=Precision.from_cfg(cfg, device),
            depth_range=ImageOptions.from_cfg(cfg).depth_range,
        )

    def __call__(self, image: Image.Image) -> BoxList:
        """Return a BoxList of the size (w, h) of `image`, xyxy, on the CPU, in descending score order.

        Fields: `scores` (n,) float32, `labels` (n,) int64 in 1..C, with a mask head `masks` (n, h, w)
            bool (and `mask_scores` (n,) where masks have their own scores), with a keypoint head
            `keypoints` (Keypoints) and `keypoint_logits` (n, K) float32.
        """
        images = self.upload(self.prepare(image))
        return self.postprocess(self.network(images), image.size)

    def prepare(self, image: Image.Image) -> ImageList:
        """Return the network input of an image, on the CPU; safe to call while another thread predicts."""
        view = self.transform(to_rgb(image, self.depth_range), None, random.Random(0))[0]
        return batch_images([view], self.size_divisible, [(image.height, image.width)])

    def upload(self, images: ImageList) -> ImageList:
        """Copy the network input to the predictor's device."""
        return images.to(self.device)

    @torch.no_grad()
    def network(self, images: ImageList) -> BoxList:
        """Return the detections of the model, in coordinates of the network input and on the device."""
        with self.precision.autocast():
            return self.model(images)[0]

    @torch.no_grad()
    def postprocess(self, detections: BoxList, size: tuple[int, int]) -> BoxList:
        """Filter, sort and resize the detections of `network` to an image of `size` (width, height)."""
        detections = (
            detections[detections.get_field("scores") >= self.min_score] if self.min_score > 0 else detections
        )
        detections = detections.to(torch.device("cpu")).resize(size).convert("xyxy")
        detections = detections[detections.get_field("scores").argsort(descending=True, stable=True)]
        result = detections.copy_with_fields(
            ["scores", "labels", "mask_scores", "keypoints", "keypoint_logits"], skip_missing=True
        )
        if detections.has_field("mask"):
            width, height = size
            result.add_field(
                "masks", image_masks(detections.get_field("mask"), detections.bbox, height, width)
            )
        return result
