"""Images, ground truth and weights of the reference files of FCOS and SipMask."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from checks.files import CONFIGS
from checks.fill import network_input
from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.geometry import AffineMap
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.masks import SegmentationMask

MEAN = (102.9801, 115.9465, 122.7717)
DIVISIBLE = 32


def config_of(info: dict[str, Any]) -> Any:
    """The project's configuration for the published one that a reference was made with."""
    published = str(info["config"]).split("configs/")[-1]
    path = Path(published.replace("++", "_plusplus")).with_suffix(".yaml")
    return load_config(CONFIGS / path)


def network_images(info: dict[str, Any]) -> ImageList:
    """The network's input (B, 3, H, W), padded as the reference says."""
    mean = re.search(r"\[([\d., ]+)\]", info.get("input", ""))
    means = [float(v) for v in mean[1].split(",")] if mean else MEAN
    tensors = network_input(info["images"], means, 1.0)
    batch = torch.zeros(tuple(info["batch_shape"]))
    for slot, tensor in zip(batch, tensors, strict=True):
        slot[:, : tensor.shape[1], : tensor.shape[2]] = tensor
    originals = [(entry["ori_shape"][0], entry["ori_shape"][1]) for entry in info.get("img_metas", [])]
    originals = originals or [(h, w) for w, h in info.get("original_sizes_wh", [])]
    maps = [_map_of(entry["scale_factor"]) for entry in info.get("img_metas", [])]
    return ImageList(batch, [(t.shape[1], t.shape[2]) for t in tensors], originals or None, maps=maps or None)


def _map_of(factor: float | list[float]) -> AffineMap:
    """Resize by a stored factor: one number, or x, y, x, y."""
    return AffineMap(factor[0], factor[1]) if isinstance(factor, list) else AffineMap(factor, factor)


def ground_truth(info: dict[str, Any], images: ImageList, *, padded: bool) -> list[BoxList]:
    """Boxes, labels and elliptic masks per image; padded: masks on a canvas of a multiple of 32."""
    targets = []
    per_image = zip(
        info["boxes_xyxy"],
        info["labels" if "labels" in info else "labels_1_based"],
        images.image_sizes,
        strict=True,
    )
    for boxes, labels, (height, width) in per_image:
        target = BoxList(torch.tensor(boxes, dtype=torch.float32), (width, height))
        target.add_field("labels", torch.tensor(labels))
        canvas = (height, width)
        if padded:
            canvas = (_up(height), _up(width))
        masks = torch.stack([_ellipse(box, canvas) for box in boxes])
        target.add_field("masks", SegmentationMask(masks, (canvas[1], canvas[0]), mode="mask"))
        targets.append(target)
    return targets


def _up(side: int) -> int:
    return -(-side // DIVISIBLE) * DIVISIBLE


def _ellipse(box: list[float], canvas: tuple[int, int]) -> Tensor:
    """(H, W) bool: the pixels whose centres lie in the ellipse inscribed in the box."""
    x1, y1, x2, y2 = (float(v) for v in box)
    x = (np.arange(canvas[1]) + 0.5 - (x1 + x2) / 2) / ((x2 - x1) / 2)
    y = (np.arange(canvas[0]) + 0.5 - (y1 + y2) / 2) / ((y2 - y1) / 2)
    return torch.from_numpy(x[None, :] ** 2 + y[:, None] ** 2 <= 1)


def override(state: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Multiply and set, in place, the tensors that a reference names."""
    with torch.no_grad():
        for name, factor in info.get("times", {}).items():
            state[name].mul_(factor)
        for name, value in info.get("overrides", {}).items():
            state[name].copy_(torch.as_tensor(value, dtype=torch.float32).expand_as(state[name]))


def override_module(module: nn.Module, info: dict[str, Any]) -> None:
    """Apply `override` to the tensors of a model."""
    override(dict(module.state_dict()), info)
