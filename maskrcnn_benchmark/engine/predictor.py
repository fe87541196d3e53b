"""Detections of single pictures."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from yacs.config import CfgNode

from maskrcnn_benchmark.checkpoint.download import fetch, is_url
from maskrcnn_benchmark.checkpoint.io import read_checkpoint
from maskrcnn_benchmark.checkpoint.load import load_weights
from maskrcnn_benchmark.config.catalog import resolve_weight
from maskrcnn_benchmark.config.classes import class_count_key
from maskrcnn_benchmark.data.transforms.build import build_test_transforms
from maskrcnn_benchmark.layers.masks import paste_masks
from maskrcnn_benchmark.modeling.detectors.augmented import model_for_testing
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.solver.precision import Precision
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.views import batch_pictures
from maskrcnn_benchmark.utils.errors import ConfigError, DataError

from .launch import process_device

# parity: padding of pasted masks and the probability above which a pixel belongs to the object.
MASK_PADDING = 1
MASK_THRESHOLD = 0.5


def read_picture(path: Path) -> Image.Image:
    """The picture file as RGB. Raises DataError when it is missing or cannot be decoded to its end."""
    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except FileNotFoundError:
        raise DataError(f"picture {path} does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"picture {path} cannot be read: {error}") from None


def stored_class_names(weights: str, num_classes: int) -> list[str]:
    """Names by label, background first, from a checkpoint; numbers as text when it holds none."""
    names = read_checkpoint(fetch(weights) if is_url(weights) else weights).get("classes")
    return [str(label) for label in range(num_classes)] if names is None else list(names)


class Predictor:
    """Callable that turns a PIL picture of any size and mode into detections at that size."""

    def __init__(
        self,
        model: nn.Module,
        *,
        transform: Callable,
        device: torch.device,
        size_divisible: int = 0,
        precision: Precision | None = None,
    ) -> None:
        """``transform``: test transform of ``data.transforms``. ``model`` is moved and put into eval mode."""
        self.model = model.to(device).eval()
        self.transform = transform
        self.device = device
        self.size_divisible = size_divisible
        self.precision = precision or Precision(torch.float32, device)

    @classmethod
    def from_config(cls, cfg: CfgNode, weights: str) -> Predictor:
        """The model of ``cfg`` with the weights of a checkpoint (path, URL or catalog name)."""
        if class_count_key(cfg) is None:
            raise ConfigError(
                "MODEL.RPN_ONLY: a model without a box head detects no classes; set it to False"
            )
        path = resolve_weight(cfg, weights)
        model = build_detection_model(cfg)
        load_weights(model, path, conv_body=cfg.MODEL.BACKBONE.CONV_BODY, complete=True)
        device = process_device(cfg.MODEL.DEVICE)
        return cls(
            model_for_testing(cfg, model),
            transform=build_test_transforms(cfg),
            device=device,
            size_divisible=cfg.DATALOADER.SIZE_DIVISIBILITY,
            precision=Precision.from_cfg(cfg, device),
        )

    @torch.no_grad()
    def __call__(self, image: Image.Image) -> BoxList:
        """Detections as a BoxList of size (w, h) of ``image``, mode xyxy, on the CPU, best first.

        Fields: ``scores`` (n,) float32, ``labels`` (n,) int64 in 1..C, with a mask head ``masks`` (n,h,w)
            bool, with a keypoint head ``keypoints`` (Keypoints) and ``keypoint_logits`` (n,K) float32.
        """
        picture = image.convert("RGB")
        seen = self.transform(picture, None, random.Random(0))[0]
        images = batch_pictures([seen], self.size_divisible, [(picture.height, picture.width)])
        with self.precision.autocast():
            found = self.model(images.to(self.device))[0]
        found = found.to(torch.device("cpu")).resize(picture.size).convert("xyxy")
        found = found[found.get_field("scores").argsort(descending=True, stable=True)]
        result = found.copy_with_fields(
            ["scores", "labels", "keypoints", "keypoint_logits"], skip_missing=True
        )
        if found.has_field("mask"):
            width, height = picture.size
            probabilities = found.get_field("mask")[:, 0].float()
            boxes = found.bbox.float()
            masks = paste_masks(probabilities, boxes, height, width, MASK_THRESHOLD, MASK_PADDING)
            result.add_field("masks", masks)
        return result
