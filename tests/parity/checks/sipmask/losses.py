"""Checks of SipMask's losses and their gradients on given outputs (SipMask, Cao et al. 2020, section 3.3)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checks.checker import GRADIENT, LOSS, VALUES, Checker
from checks.files import required_side_file
from checks.noise_text import NoiseReader
from checks.sipmask.inputs import config_of, ground_truth
from checks.store import read_pair
from maskrcnn_benchmark.modeling.heads.fcos.targets import FCOSOutputs
from maskrcnn_benchmark.modeling.heads.sipmask.head import build_sipmask
from maskrcnn_benchmark.modeling.heads.sipmask.targets import SipMaskOutputs
from maskrcnn_benchmark.modeling.losses import mean_losses
from maskrcnn_benchmark.structures.features import FeatureSpec
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.model_input import ModelInput
from maskrcnn_benchmark.utils.files import read_json

NAMES = ("loss_cls", "loss_reg", "loss_centerness", "loss_mask")
IOU_LOSSES = ("linear_iou", "giou", "iou")
CHANNELS = 256


def check_losses(path: Path, checker: Checker) -> None:
    """Losses and gradients of every variant that a file lists."""
    info, arrays = read_pair(path)
    model, index = _source(path.parent, info["gt"])
    images = ImageList(torch.zeros((1, 3, *info["image_hw"])), [tuple(info["image_hw"])])
    boxes_and_labels = {key: [model[key][index]] for key in ("boxes_xyxy", "labels")}
    targets = ground_truth(boxes_and_labels, images, padded=False)
    for name, expected in info["variants"].items():
        with checker.section(f"{path.stem}.{name}"):
            cfg = config_of(model)
            cfg.defrost()
            cfg.merge_from_list(overrides(name))
            with torch.device("meta"):
                features = [FeatureSpec(CHANNELS, stride) for stride in cfg.MODEL.SIPMASK.FPN_STRIDES]
                head = build_sipmask(cfg, features)
            outputs = described_outputs(info, name)
            leaves = output_leaves(outputs)
            losses = mean_losses(head.losses(outputs, ModelInput(images, targets)))
            for key, value in zip(NAMES, expected["losses[cls,reg,centerness,mask]"], strict=True):
                checker.relative(key, losses[key], value, LOSS)
            torch.stack(list(losses.values())).sum().backward()
            _check_gradients(leaves, expected["grad_norms"], checker)
            if name == next(iter(info["variants"])):
                _check_arrays(leaves, arrays, info["strides"], checker)


def _source(folder: Path, text: str) -> tuple[dict[str, Any], int]:
    """The model reference and the index of its image that a text names, as `image 0 of <name>.json`."""
    match = re.search(r"image (\d+) of (\S+\.json)", text)
    if match is None:
        raise ValueError(f"the description {text!r} names no image of a reference file")
    path = required_side_file(folder, match[2], "sipmask")
    return read_json(path, what="reference file"), int(match[1])


def overrides(variant: str) -> list[Any]:
    """Keys and values that a variant changes in the published configuration, told by its name."""
    kind = next((kind for kind in IOU_LOSSES if kind in variant), None)
    pairs: list[Any] = [] if kind is None else ["MODEL.SIPMASK.IOU_LOSS_TYPE", kind]
    return pairs + (["MODEL.SIPMASK.CENTER_SAMPLING_RADIUS", 0.0] if "no_center_sampling" in variant else [])


def described_outputs(info: dict[str, Any], variant: str) -> SipMaskOutputs:
    """Leaf tensors of the head outputs that the texts of a file describe, for one variant."""
    noise, texts = NoiseReader.of(info), info["inputs"]
    sizes = [(int(h), int(w)) for h, w in info["level_sizes_hw"]]
    gain = re.search(r"times_([\d.]*\d)", variant)
    coefficients = texts["coefficients"]
    if gain is not None:
        coefficients = re.sub(r"\*[\d.]*\d", f"*{gain[1]}", coefficients, count=1)

    def levels(text: str) -> list[Tensor]:
        return [noise(text, i=i, H=h, W=w).requires_grad_() for i, (h, w) in enumerate(sizes)]

    boxes = FCOSOutputs(
        levels(texts["cls level i"]), levels(texts["reg level i"]), levels(texts["centerness"])
    )
    scaled = {f"{n}{side}3": n * size for n in (2, 4, 8) for side, size in zip("HW", sizes[0], strict=True)}
    basis = noise(texts["basis"], **scaled).requires_grad_()
    return SipMaskOutputs(boxes, levels(coefficients), basis)


def output_leaves(outputs: SipMaskOutputs) -> dict[str, list[Tensor]]:
    """The tensors per level, by the names that the file has for their gradients."""
    boxes = outputs.boxes
    return {
        "cls": boxes.logits,
        "reg": boxes.distances,
        "centerness": boxes.centerness,
        "coef": outputs.coefficients,
        "basis": [outputs.basis],
    }


def gradient_norm(tensor: Tensor) -> float:
    """L2 norm of the gradient, 0 where there is none."""
    return 0.0 if tensor.grad is None else float(tensor.grad.double().norm())


def _check_gradients(leaves: dict[str, list[Tensor]], expected: dict[str, Any], checker: Checker) -> None:
    for name, tensors in leaves.items():
        norms = expected[name] if isinstance(expected[name], list) else [expected[name]]
        checker.relative(f"grad.{name}", [gradient_norm(t) for t in tensors], norms, GRADIENT)


def stored_gradient(name: str, leaves: dict[str, list[Tensor]], strides: dict[str, int]) -> Tensor:
    """The gradient that array `grad.<kind>[.P<level>]` holds, every n-th value where `strides` says so."""
    _, kind, *level = name.split(".")
    tensor = leaves[kind][int(level[0].removeprefix("P")) - 3 if level else 0]
    assert tensor.grad is not None, f"{name} has no gradient"
    return tensor.grad.flatten()[:: strides[name]] if name in strides else tensor.grad


def _check_arrays(
    leaves: dict[str, list[Tensor]], arrays: dict[str, Any], strides: dict[str, int], checker: Checker
) -> None:
    for name, expected in arrays.items():
        checker.values(name, stored_gradient(name, leaves, strides), expected, VALUES)
