"""SipMask's component references computed anew by our own operations, from noise of any prefix.

Ours equals the originals on the stored files, so that a folder written here is as good as theirs. Inputs are
made from names and formulas of the README of the references, not by what the checks read from the texts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checks.fill import noise_tensor
from checks.sipmask.inputs import config_of, ground_truth
from checks.sipmask.losses import NAMES, gradient_norm, output_leaves, overrides, stored_gradient
from checks.store import read_arrays
from maskrcnn_benchmark.layers.crop_split import crop_split, crop_split_gt
from maskrcnn_benchmark.layers.deform_conv import deform_conv2d
from maskrcnn_benchmark.layers.nms import batched_nms, nms
from maskrcnn_benchmark.modeling.heads.fcos.postprocess import fast_nms
from maskrcnn_benchmark.modeling.heads.fcos.targets import FCOSOutputs
from maskrcnn_benchmark.modeling.heads.sipmask.head import build_sipmask
from maskrcnn_benchmark.modeling.heads.sipmask.targets import SipMaskOutputs
from maskrcnn_benchmark.modeling.losses import mean_losses
from maskrcnn_benchmark.structures.features import FeatureSpec
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.model_input import ModelInput

OLD = "sip_"


def recompute_ops(source: Path, target: Path, prefix: str) -> None:
    """Write `ops.json` and `ops.npz` of `source` to `target` with noise of another prefix."""
    text = (source / "ops.json").read_text(encoding="utf-8").replace(OLD, prefix)
    (target / "ops.json").write_text(text, encoding="utf-8")
    info, stored = json.loads(text), read_arrays(source / "ops.npz")
    arrays: dict[str, Tensor] = {}
    for name, entry in info["crop_split"].items():
        arrays |= _crop(name, entry, stored[f"{name}.out"].shape, prefix)
    arrays |= _nms([name for name in stored if "nms_" in name], prefix)
    arrays |= _fast_nms([name for name in stored if name.endswith(".classes")], prefix)
    arrays |= _deformable(prefix)
    assert set(stored) - set(arrays) == {n for n in stored if n.endswith((".cell", ".coef"))}
    np.savez(target / "ops.npz", **{name: tensor.detach().numpy() for name, tensor in arrays.items()})


def _crop(name: str, entry: dict[str, Any], shape: tuple[int, ...], prefix: str) -> dict[str, Tensor]:
    boxes = torch.tensor(entry["rois_xyxy"])
    data = noise_tensor(f"{prefix}crop_{name}", (entry["cells"] ** 2, *shape)).requires_grad_()
    out = crop_split(data, boxes, entry["cells"])
    out.backward(noise_tensor(f"{prefix}cropgrad_{name}", shape))
    assert data.grad is not None
    gt = crop_split_gt(data[0].detach(), boxes)
    return {f"{name}.out": out, f"{name}.grad_in": data.grad, f"{name}.gt_out": gt}


def _boxes(name: str, count: int, first: float, second: float, add: float) -> Tensor:
    values = noise_tensor(name, (count, 4)).abs()
    corner = values[:, :2] * first
    return torch.cat((corner, corner + values[:, 2:] * second + add), dim=1)


def _nms(names: list[str], prefix: str) -> dict[str, Tensor]:
    boxes = _boxes(f"{prefix}nmsb", 60, 40, 30, 5)
    scores = noise_tensor(f"{prefix}nmss", (60,)).sigmoid()
    labels = (noise_tensor(f"{prefix}nmsl", (60,)).abs() * 2).long() % 3 + 1
    result = {}
    for name in names:
        threshold = float(name.rpartition("_")[2])
        if name.startswith("ml_"):
            result[name] = batched_nms(boxes, scores, labels, threshold)
        else:
            result[name] = nms(boxes, scores, threshold)
    return result


def _fast_nms(names: list[str], prefix: str) -> dict[str, Tensor]:
    boxes = _boxes(f"{prefix}fb", 120, 60, 40, 8)
    scores = (noise_tensor(f"{prefix}fs", (5, 120)) * 1.5 - 2).sigmoid()
    result = {}
    for name in names:
        _, top_k, threshold = name.removesuffix(".classes").split(".", 2)
        labels, index = (scores > float(threshold)).nonzero().unbind(1)
        candidates = scores[labels, index]
        kept = fast_nms(boxes[index], candidates, labels, 0.5, int(top_k))
        kept = kept[candidates[kept].argsort(descending=True, stable=True)][:100]
        result[name] = labels[kept]
        detections = torch.cat((boxes[index[kept]], candidates[kept, None]), dim=1)
        result[name.replace("classes", "boxes_scores")] = detections
    return result


def _deformable(prefix: str) -> dict[str, Tensor]:
    leaves = {
        "x": noise_tensor(f"{prefix}dx", (2, 8, 7, 9)),
        "offset": noise_tensor(f"{prefix}do", (2, 72, 7, 9)) * 2,
        "w": noise_tensor(f"{prefix}dw", (6, 8, 3, 3)) * 0.2,
    }
    for tensor in leaves.values():
        tensor.requires_grad_()
    out = deform_conv2d(leaves["x"], leaves["offset"], leaves["w"], padding=1)
    out.backward(noise_tensor(f"{prefix}dg", (2, 6, 7, 9)))
    gradients = {f"deform.grad_{name}": tensor.grad for name, tensor in leaves.items()}
    return {"deform.out": out, **{name: grad for name, grad in gradients.items() if grad is not None}}


def recompute_losses(source: Path, target: Path, prefix: str) -> None:
    """Write `benchmark_losses.json` and its arrays to `target` with noise of another prefix."""
    text = (source / "benchmark_losses.json").read_text(encoding="utf-8").replace(OLD, prefix)
    info, stored = json.loads(text), read_arrays(source / "benchmark_losses.npz")
    model = json.loads((source / "benchmark_r50_model.json").read_text(encoding="utf-8"))
    images = ImageList(torch.zeros((1, 3, *info["image_hw"])), [tuple(info["image_hw"])])
    first = {key: model[key][:1] for key in ("boxes_xyxy", "labels")}
    targets = ground_truth(first, images, padded=False)
    arrays: dict[str, np.ndarray] = {}
    for name, variant in info["variants"].items():
        cfg = config_of(model)
        cfg.defrost()
        cfg.merge_from_list(overrides(name))
        with torch.device("meta"):
            head = build_sipmask(cfg, [FeatureSpec(256, s) for s in cfg.MODEL.SIPMASK.FPN_STRIDES])
        outputs = _outputs(info, prefix, 1.0 if "times_1.0" in name else 0.3)
        losses = mean_losses(head.losses(outputs, ModelInput(images, targets)))
        torch.stack(list(losses.values())).sum().backward()
        leaves = output_leaves(outputs)
        variant["losses[cls,reg,centerness,mask]"] = [float(losses[key].detach()) for key in NAMES]
        variant["grad_norms"] = {kind: [gradient_norm(t) for t in parts] for kind, parts in leaves.items()}
        if not arrays:
            arrays = {key: stored_gradient(key, leaves, info["strides"]).numpy() for key in stored}
    (target / "benchmark_losses.json").write_text(json.dumps(info), encoding="utf-8")
    np.savez(target / "benchmark_losses.npz", **arrays)


def _outputs(info: dict[str, Any], prefix: str, gain: float) -> SipMaskOutputs:
    sizes = [tuple(size) for size in info["level_sizes_hw"]]

    def levels(name: str, channels: int) -> list[Tensor]:
        return [noise_tensor(f"{prefix}{name}{i}", (1, channels, *size)) for i, size in enumerate(sizes)]

    boxes = FCOSOutputs(
        [(level - 2).requires_grad_() for level in levels("cls", 80)],
        [(level.abs() * 1.5 + 0.5).requires_grad_() for level in levels("reg", 4)],
        [level.requires_grad_() for level in levels("ctr", 1)],
    )
    height, width = sizes[0]
    basis = noise_tensor(f"{prefix}basis", (1, 32, 4 * height, 4 * width)).clamp(min=0).requires_grad_()
    return SipMaskOutputs(boxes, [(level * gain).requires_grad_() for level in levels("cof", 128)], basis)
