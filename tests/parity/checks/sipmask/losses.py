"""Checks of SipMask's losses and their gradients on given outputs (SipMask spec 2.4 and 5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checks.checker import GRADIENT, LOSS, VALUES, Checker
from checks.fill import noise_tensor
from checks.sipmask.inputs import config_of, ground_truth
from checks.store import read_pair
from maskrcnn_benchmark.modeling.heads.fcos.targets import FCOSOutputs
from maskrcnn_benchmark.modeling.heads.sipmask.head import build_sipmask
from maskrcnn_benchmark.modeling.heads.sipmask.outputs import SipMaskOutputs
from maskrcnn_benchmark.modeling.losses import mean_losses
from maskrcnn_benchmark.structures.features import FeatureSpec
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.model_input import ModelInput
from maskrcnn_benchmark.utils.files import read_json

NAMES = ("loss_cls", "loss_reg", "loss_centerness", "loss_mask")
VARIANTS = {
    "sipmask_giou": (),
    "iou": ("MODEL.SIPMASK.IOU_LOSS_TYPE", "iou"),
    "linear_iou": ("MODEL.SIPMASK.IOU_LOSS_TYPE", "linear_iou"),
    "giou_coef_times_1.0_triggers_halving": (),
    "no_center_sampling": ("MODEL.SIPMASK.CENTER_SAMPLING_RADIUS", 0.0),
}
"""What a variant changes in the published configuration."""


def check_losses(folder: Path, checker: Checker) -> None:
    """`benchmark_losses.json`: every variant's losses and gradients."""
    info, arrays = read_pair(folder, "benchmark_losses")
    model = read_json(folder / "benchmark_r50_model.json", what="reference file")
    images = ImageList(torch.zeros((1, 3, *info["image_hw"])), [tuple(info["image_hw"])])
    targets = ground_truth(folder, images, padded=False)
    for name, expected in info["variants"].items():
        with checker.section(f"benchmark_losses.{name}"):
            cfg = config_of(model)
            cfg.defrost()
            cfg.merge_from_list(list(VARIANTS[name]))
            with torch.device("meta"):
                head = build_sipmask(
                    cfg, [FeatureSpec(256, stride) for stride in cfg.MODEL.SIPMASK.FPN_STRIDES]
                )
            outputs = _outputs(info, 1.0 if "times_1.0" in name else 0.3)
            leaves = _leaves(outputs)
            losses = mean_losses(head.losses(outputs, ModelInput(images, targets)))
            for key, value in zip(NAMES, expected["losses[cls,reg,centerness,mask]"], strict=True):
                checker.relative(key, losses[key], value, LOSS)
            torch.stack(list(losses.values())).sum().backward()
            _check_gradients(leaves, expected["grad_norms"], checker)
            if name == "sipmask_giou":
                _check_arrays(leaves, arrays, info["strides"], checker)


def _outputs(info: dict[str, Any], gain: float) -> SipMaskOutputs:
    sizes = [tuple(size) for size in info["level_sizes_hw"]]

    def drawn(name: str, channels: int) -> list[Tensor]:
        return [noise_tensor(f"sip_{name}{i}", (1, channels, *size)) for i, size in enumerate(sizes)]

    boxes = FCOSOutputs(
        [(level - 2).requires_grad_() for level in drawn("cls", 80)],
        [(level.abs() * 1.5 + 0.5).requires_grad_() for level in drawn("reg", 4)],
        [level.requires_grad_() for level in drawn("ctr", 1)],
    )
    height, width = sizes[0]
    basis = noise_tensor("sip_basis", (1, 32, 4 * height, 4 * width)).clamp(min=0).requires_grad_()
    coefficients = [(level * gain).requires_grad_() for level in drawn("cof", 128)]
    return SipMaskOutputs(boxes, coefficients, basis)


def _leaves(outputs: SipMaskOutputs) -> dict[str, list[Tensor]]:
    boxes = outputs.boxes
    return {
        "cls": boxes.logits,
        "reg": boxes.distances,
        "centerness": boxes.centerness,
        "coef": outputs.coefficients,
        "basis": [outputs.basis],
    }


def _norm(tensor: Tensor) -> float:
    return 0.0 if tensor.grad is None else float(tensor.grad.double().norm())


def _check_gradients(leaves: dict[str, list[Tensor]], expected: dict[str, Any], checker: Checker) -> None:
    for name, tensors in leaves.items():
        wanted = expected[name] if isinstance(expected[name], list) else [expected[name]]
        checker.relative(f"grad.{name}", [_norm(t) for t in tensors], wanted, GRADIENT)


def _check_arrays(
    leaves: dict[str, list[Tensor]], arrays: dict[str, Any], strides: dict[str, int], checker: Checker
) -> None:
    """Stored gradients, some of them every n-th number."""
    for name, wanted in arrays.items():
        _, kind, *level = name.split(".")
        tensor = leaves[kind][int(level[0].removeprefix("P")) - 3 if level else 0]
        assert tensor.grad is not None, f"{name} has no gradient"
        got = tensor.grad.flatten()[:: strides[name]] if name in strides else tensor.grad
        checker.values(name, got, wanted, VALUES)
