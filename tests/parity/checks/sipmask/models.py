"""Checks of whole FCOS and SipMask models, from outputs to masks, losses and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checks.checker import LOSS, Checker
from checks.files import required_side_file
from checks.fill import fill_module, value
from checks.sipmask.inputs import (
    config_of,
    ground_truth,
    network_images,
    override,
    override_module,
)
from checks.store import read_pair, statistics, unpack
from maskrcnn_benchmark.checkpoint.families.mmdetection_sipmask import TABLE
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.modeling.detectors.one_stage import OneStageDetector
from maskrcnn_benchmark.modeling.heads.fcos.head import FCOS
from maskrcnn_benchmark.modeling.heads.fcos.targets import FCOSOutputs
from maskrcnn_benchmark.modeling.heads.sipmask.head import SipMask
from maskrcnn_benchmark.modeling.heads.sipmask.targets import SipMaskOutputs
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.geometry import ImageGeometry
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.utils.files import read_json

Arrays = dict[str, np.ndarray]
OUTPUTS = 1e-3
"""Largest difference of a head output, absolute or relative to the largest."""
BOX_PIXELS, UNMATCHED, MASK_PIXELS, NORMS = 0.05, 0.02, 0.003, 0.01
LOSS_NAMES = {"loss_bbox": "loss_reg", "loss_iou": "loss_mask_score"}
"""Names of the mmdetection family for losses of ours."""


def check_model(path: Path, checker: Checker) -> None:
    """The description of a whole model and its arrays: evaluation, then a training step."""
    info, arrays = read_pair(path)
    cfg = config_of(info)
    model = build_detection_model(cfg).to("cpu")
    names = _fill(model, path.parent, info)
    images = network_images(info)
    with checker.section(path.stem):
        with torch.no_grad():
            _check_evaluation(model.eval(), images, info, arrays, checker)
        _check_training(model.train(), images, info, names, checker)


def _fill(model: OneStageDetector, folder: Path, info: dict[str, Any]) -> dict[str, str]:
    """Fill the model as the reference says; returns published parameter names -> names of the model."""
    prefix = info.get("weight_prefix", "")
    if "mmdetection" not in info["config"]:
        fill_module(model, prefix=prefix)
        override_module(model, info)
        return {name: name for name in model.state_dict()}
    stem = Path(str(info["config"])).stem.replace("++", "_plusplus")
    listed = required_side_file(folder, f"shapes_mmdet_{stem}.json", "sipmask")
    shapes = read_json(listed, what="list of shapes")
    # A scale of shape () has the value that one of shape (1,) has.
    values = {key: value(prefix + key, tuple(shape) or (1,)).reshape(shape) for key, shape in shapes.items()}
    state = {key: torch.from_numpy(array.copy()) for key, array in values.items()}
    override(state, info)
    model.load_state_dict(TABLE.to_ours(state), strict=True)
    keys = list(state)
    numbered = {key: torch.tensor([number]) for number, key in enumerate(keys)}
    return {keys[int(tensor)]: name for name, tensor in TABLE.to_ours(numbered).items()}


def _check_evaluation(
    model: OneStageDetector, images: ImageList, info: dict[str, Any], arrays: Arrays, checker: Checker
) -> None:
    features, head = model.backbone(images.tensors), model.rpn
    assert isinstance(head, FCOS | SipMask)
    outputs = head(features)
    boxes: FCOSOutputs = outputs.boxes if isinstance(outputs, SipMaskOutputs) else outputs
    units = [unit[0, 0] for unit in head.points(outputs).units]
    maps = {
        "": features,
        "cls.": boxes.logits,
        "reg.": [level * unit for level, unit in zip(boxes.distances, units, strict=True)],
        "centerness.": boxes.centerness,
    }
    if isinstance(outputs, SipMaskOutputs):
        maps["coef."] = outputs.coefficients
        _check_array("eval.basis", outputs.basis, info, arrays, checker)
    for kind, levels in maps.items():
        for level, tensor in enumerate(levels, start=3):
            _check_array(f"eval.{kind}P{level}", tensor, info, arrays, checker)
    for i, boxlist in enumerate(head.predict(outputs, images)):
        # The reference stores boxes in pixels of the image file where it was resized.
        geometry = images.geometry[i] if isinstance(head, SipMask) and "img_metas" in info else None
        with checker.section(f"det{i}"):
            _check_detections(i, boxlist, geometry, arrays, checker)


def _check_array(name: str, got: Tensor, info: dict[str, Any], arrays: Arrays, checker: Checker) -> None:
    """A stored sample of a tensor, and its statistics."""
    if name not in info["arrays"]:
        return
    entry = info["arrays"][name]
    checker.equal(f"{name}.shape", list(got.shape), entry["shape"])
    largest = max(1.0, float(arrays[f"{name}.stat"][2]))
    sample = got.detach().flatten()[:: entry["stride"]]
    checker.values(name, sample, arrays[name], OUTPUTS, scale=largest)
    checker.values(f"{name}.stat", statistics(got.detach().numpy()), arrays[f"{name}.stat"], OUTPUTS)


def _check_detections(
    image: int, detections: BoxList, geometry: ImageGeometry | None, arrays: Arrays, checker: Checker
) -> None:
    """Boxes by partners of equal label, then the masks and mask scores of the pairs."""
    boxes = detections.bbox.numpy()
    if geometry is not None:
        vertical, horizontal = geometry.scale
        boxes = boxes / np.array([horizontal, vertical, horizontal, vertical], np.float32)
    stored, stored_labels = arrays[f"det{image}.boxes"], arrays[f"det{image}.labels"]
    labels, free = detections.get_field("labels").numpy(), np.ones(len(boxes), bool)
    pairs = []
    for index in range(len(stored)):
        distance = np.abs(boxes - stored[index]).max(axis=1)
        fits = free & (labels == stored_labels[index]) & (distance <= BOX_PIXELS)
        if fits.any():
            pairs.append((int(np.where(fits, distance, np.inf).argmin()), index))
            free[pairs[-1][0]] = False
    total = max(len(boxes), len(stored), 1)
    checker.add("boxes", (total - len(pairs)) / total, UNMATCHED)
    mine, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    scores = detections.get_field("scores").numpy()[mine]
    checker.values("scores", scores, arrays[f"det{image}.scores"][theirs], OUTPUTS, scale=1.0)
    if f"det{image}.mask_scores" in arrays:
        expected = arrays[f"det{image}.mask_scores"][theirs]
        checker.values("mask_scores", detections.get_field("mask_scores")[mine], expected, OUTPUTS)
    if f"det{image}.masks_bits" in arrays:
        masks = detections.get_field("mask")[:, 0].numpy()
        bits = arrays[f"det{image}.masks_bits"]
        expected_masks = [unpack(bits[index], masks.shape[1:]) for index in theirs]
        different = sum(int((masks[a] != b).sum()) for a, b in zip(mine, expected_masks, strict=True))
        checker.add("masks", different / max(1, sum(int(b.sum()) for b in expected_masks)), MASK_PIXELS)


def _check_training(
    model: OneStageDetector,
    images: ImageList,
    info: dict[str, Any],
    names: dict[str, str],
    checker: Checker,
) -> None:
    expected = info["train"]
    stored = expected["losses"]
    if isinstance(stored, list):
        stored = dict(zip(expected["losses_order"], stored, strict=True))
    targets = ground_truth(info, images, padded="img_metas" in info)
    losses = model(images, targets)
    renamed = {LOSS_NAMES.get(name, name): loss for name, loss in stored.items()}
    checker.same("loss_names", sorted(losses), sorted(renamed))
    for name, loss in renamed.items():
        checker.relative(name, losses[name], loss, LOSS)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, norm in expected["grad_l2_norm_of_sum_of_losses"].items():
        gradient = gradients[names[name]]
        if norm is None:
            checker.same(f"grad.{name}", gradient is None, True)
        else:
            got = 0.0 if gradient is None else float(gradient.double().norm())
            checker.relative(f"grad.{name}", got, norm, NORMS)
