"""Checks of whole two-stage models: every stage in evaluation mode, losses and gradients in training mode."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from yacs.config import CfgNode

from checks.checker import BOX_PIXELS, GRADIENT, LOSS, UNMATCHED, Checker
from checks.configs import config_from_diff, unsupported_settings
from checks.core.inputs import detection_arrays
from checks.core.params import check_parameters
from checks.files import side_file
from checks.fill import fill_module, image, network_input
from checks.store import indexed, read_pair, statistics, thin
from maskrcnn_benchmark.data.transforms import build_test_transforms
from maskrcnn_benchmark.modeling.detectors.augmented import model_for_testing
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.modeling.detectors.one_stage import OneStageDetector
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import RoIHeads
from maskrcnn_benchmark.modeling.rpn.inference import add_ground_truth
from maskrcnn_benchmark.structures.boxlist import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList, to_image_list
from maskrcnn_benchmark.structures.keypoints import Keypoints
from maskrcnn_benchmark.structures.masks import SegmentationMask
from maskrcnn_benchmark.structures.views import batch_images
from maskrcnn_benchmark.utils.files import read_json

Arrays = dict[str, np.ndarray]
SAMPLE, LOGIT_SAMPLE = 2000, 4000
FIRST_ROWS = 32
MAX_LABEL = 1_000_000
GRADIENT_NOISE = 1e-6
# mean and scale of the pixels where a file's description gives none
MEAN, STD = (102.9801, 115.9465, 122.7717), 57.0


def check_model(path: Path, checker: Checker) -> None:
    """A description and its arrays: training where it lists losses, else evaluation."""
    info, arrays = read_pair(path)
    name, prefix = path.stem, info.get("weight_prefix", "")
    diff = info["config_diff_from_defaults"]
    missing = unsupported_settings(diff)
    if missing:
        checker.unsupported(name, missing)
        return
    with checker.section(name):
        cfg = config_from_diff(diff)
        model = build_detection_model(cfg).to("cpu")
        listed = side_file(path.parent, info["parameters"], "core") if "parameters" in info else None
        if listed is not None:
            check_parameters(model, read_json(listed, what="parameter list"), checker)
        fill_module(model, prefix=prefix, gains=info.get("gains"))
        if cfg.TEST.BBOX_AUG.ENABLED:
            _check_augmented(cfg, model.eval(), info, arrays, checker)
            return
        images = to_image_list(_images(info), cfg.DATALOADER.SIZE_DIVISIBILITY)
        if "batch_shape" in info:
            checker.equal("batch_shape", list(images.tensors.shape), info["batch_shape"])
        if "losses" in info:
            _check_training(model.train(), images, info, arrays, checker)
        else:
            with torch.no_grad():
                _check_evaluation(model.eval(), images, info, arrays, checker)


def _images(info: dict[str, Any]) -> list[Tensor]:
    """Network inputs; mean and scale are those of the description where it gives them."""
    text = info.get("input", "")
    mean = re.search(r"mean=\[([^\]]*)\]", text)
    std = re.search(r"\)/([\d.]+\d|\d+)", text)
    means = [float(v) for v in mean[1].split(",")] if mean else MEAN
    return network_input(info["images"], means, float(std[1]) if std else STD)


def _sampled(checker: Checker, arrays: Arrays, name: str, got: Tensor, limit: int = SAMPLE) -> None:
    """`name.sample`, `name.stats` and `name.shape` of a tensor."""
    array = got.detach().numpy()
    checker.equal(f"{name}.shape", list(array.shape), arrays[f"{name}.shape"])
    # The largest value of the whole array stands in the statistics; the sample may miss it.
    largest = float(arrays[f"{name}.stats"][2])
    checker.values(f"{name}.sample", thin(array, limit), arrays[f"{name}.sample"], scale=largest)
    checker.values(f"{name}.stats", statistics(array), arrays[f"{name}.stats"])


def _check_evaluation(
    model: GeneralizedRCNN | OneStageDetector,
    images: ImageList,
    info: dict[str, Any],
    arrays: Arrays,
    checker: Checker,
) -> None:
    features = model.backbone(images.tensors)
    for level, feature in enumerate(features):
        if f"feature{level}.sample" in arrays:
            _sampled(checker, arrays, f"feature{level}", feature)
    head = model.get_submodule("rpn.head")  # of the region proposal network or of RetinaNet
    logits, deltas = head(features)
    for level in range(len(logits)):
        if f"rpn_logits{level}.sample" in arrays:
            _sampled(checker, arrays, f"rpn_logits{level}", logits[level])
            _sampled(checker, arrays, f"rpn_deltas{level}", deltas[level])
    if isinstance(model, OneStageDetector):
        _check_detections(model(images), info, arrays, checker)
        return
    proposals = model.rpn.predict(features, images)
    _check_proposals(proposals, info.get("num_proposals"), arrays, checker)
    heads = model.roi_heads
    if heads is None or "det0.boxes" not in arrays:
        return
    stored = _stored_boxes(arrays, "proposals{}.boxes", images)
    _check_box_head(heads, features, stored, arrays, checker)
    _check_detections(model(images), info, arrays, checker)
    if "mask_logits.sample" in arrays:
        _check_mask_head(heads, features, _stored_boxes(arrays, "det{}.boxes", images), arrays, checker)
    if "kp_logits.sample" in arrays:
        _check_keypoint_head(heads, features, _stored_boxes(arrays, "det{}.boxes", images), arrays, checker)


def _stored_boxes(arrays: Arrays, name: str, images: ImageList) -> list[BoxList]:
    """Stored boxes per image as BoxLists, with labels where there are any."""
    lists = []
    for i, (boxes, (height, width)) in enumerate(zip(indexed(arrays, name), images.image_sizes, strict=True)):
        boxlist = BoxList(torch.from_numpy(boxes.copy()), (width, height))
        labels = name.format(i).replace("boxes", "labels")
        if labels in arrays:
            boxlist.add_field("labels", torch.from_numpy(arrays[labels].astype(np.int64)))
        lists.append(boxlist)
    return lists


def _check_proposals(
    proposals: list[BoxList], counts: list[int] | None, arrays: Arrays, checker: Checker
) -> None:
    for i, boxlist in enumerate(proposals):
        scores = arrays.get(f"proposals{i}.objectness")
        got = [boxlist.bbox.numpy(), boxlist.get_field("objectness").numpy()]
        boxes = arrays[f"proposals{i}.boxes"]
        if scores is None:
            got[1], scores = np.zeros(len(boxlist)), np.zeros(len(boxes))
        checker.boxes(f"proposals{i}", got, [boxes, scores])
        if counts is not None:
            checker.add(f"proposals{i}.number", abs(len(boxlist) / max(counts[i], 1) - 1), 0.01)


def _check_box_head(
    heads: RoIHeads, features: list[Tensor], proposals: list[BoxList], arrays: Arrays, checker: Checker
) -> None:
    """The box head on the stored proposals, so that NMS of the RPN plays no part."""
    head = heads.box
    x = head.feature_extractor(features, [p.bbox for p in proposals])
    logits, deltas = head.predictor(x)
    for name, got in (("box_features", x), ("box_logits", logits), ("box_deltas", deltas)):
        if f"{name}.sample" in arrays:
            _sampled(checker, arrays, name, got)
    counts = [len(p) for p in proposals]
    for name, parts in (("box_logits", logits.split(counts)), ("box_deltas", deltas.split(counts))):
        for i, part in enumerate(parts):
            checker.values(f"{name}{i}.first32", part[:FIRST_ROWS], arrays[f"{name}{i}.first32"])
    detections = head.post_processor(logits, deltas, proposals)
    _compare_detections(detections, arrays, checker, "from_stored_proposals.det")


def _compare_detections(detections: list[BoxList], arrays: Arrays, checker: Checker, name: str) -> None:
    for i, boxlist in enumerate(detections):
        got = detection_arrays(boxlist)
        checker.boxes(f"{name}{i}", got, [arrays[f"det{i}.{part}"] for part in ("boxes", "scores", "labels")])


def _check_augmented(
    cfg: CfgNode, model: GeneralizedRCNN, info: dict[str, Any], arrays: Arrays, checker: Checker
) -> None:
    """Detections from several views of 8-bit images, from Pillow images on."""
    transform, views = build_test_transforms(cfg), []
    for entry in info["images"]:
        pixels = image(entry["name"], entry["height"], entry["width"])
        pil_image = Image.fromarray(np.rint(pixels).astype(np.uint8))
        views.append(transform(pil_image, None, random.Random(0))[0])
    images = batch_images(views, cfg.DATALOADER.SIZE_DIVISIBILITY)
    sizes = [[width, height] for height, width in images.image_sizes]
    checker.equal("sizes_wh", sizes, info["sizes_wh"])
    detections = model_for_testing(cfg, model)(images)
    checker.equal("num", [len(boxlist) for boxlist in detections], info["num"])
    # Images are told apart by their labels and compared together: one box of theirs may differ.
    parts = [f"det{{}}.{part}" for part in ("boxes", "scores", "labels")]
    expected = [indexed(arrays, part) for part in parts]
    got = [[b.bbox for b in detections]]
    got += [[b.get_field(field) for b in detections] for field in ("scores", "labels")]
    for columns in (expected, got):
        columns[2] = [np.asarray(labels) + index * MAX_LABEL for index, labels in enumerate(columns[2])]
    checker.boxes("det", *([np.concatenate(c) for c in columns] for columns in (got, expected)))


def _check_detections(
    detections: list[BoxList], info: dict[str, Any], arrays: Arrays, checker: Checker
) -> None:
    _compare_detections(detections, arrays, checker, "det")
    for i, count in enumerate(info.get("num_detections", [])):
        checker.add(f"det{i}.number", abs(len(detections[i]) / max(count, 1) - 1), 0.01)


def _check_mask_head(
    heads: RoIHeads,
    features: list[Tensor],
    detections: list[BoxList],
    arrays: Arrays,
    checker: Checker,
) -> None:
    """All mask channels, and the masks of every fifth detection, on the stored detections."""
    mask = heads.mask
    assert mask is not None, "the reference holds masks, but the model has no mask head"
    transfer = heads.bbox2mask is not None
    every = mask.all_logits(features, detections, heads.all_mask_class_weights() if transfer else None)
    _sampled(checker, arrays, "mask_logits", every, LOGIT_SAMPLE)
    masks = mask.predict(features, detections, heads.mask_class_weights if transfer else None)
    for i, boxlist in enumerate(masks):
        if f"det{i}.mask.every5" in arrays:
            checker.values(
                f"det{i}.mask.every5", boxlist.get_field("mask")[::5], arrays[f"det{i}.mask.every5"]
            )


def _check_keypoint_head(
    heads: RoIHeads, features: list[Tensor], detections: list[BoxList], arrays: Arrays, checker: Checker
) -> None:
    """Heat maps, and keypoints of the stored detections."""
    head = heads.keypoint
    assert head is not None, "the reference holds keypoints, but the model has no keypoint head"
    logits = head(features, [d.bbox for d in detections])
    _sampled(checker, arrays, "kp_logits", logits, LOGIT_SAMPLE)
    for i, boxlist in enumerate(head.predict(features, detections)):
        points, expected = boxlist.get_field("keypoints").points, arrays[f"det{i}.keypoints"]
        far = np.abs(points.numpy() - expected).max(axis=2) > BOX_PIXELS
        checker.add(f"det{i}.keypoints", float(far.mean()), UNMATCHED)
        checker.values(
            f"det{i}.keypoint_logits", boxlist.get_field("keypoint_logits"), arrays[f"det{i}.keypoint_logits"]
        )


def _targets(info: dict[str, Any], images: ImageList) -> list[BoxList]:
    targets = []
    for entry, (height, width) in zip(info["targets"], images.image_sizes, strict=True):
        target = BoxList(torch.tensor(entry["boxes"], dtype=torch.float32).reshape(-1, 4), (width, height))
        target.add_field("labels", torch.tensor(entry["labels"], dtype=torch.int64))
        if "polygons" in entry:
            target.add_field("masks", SegmentationMask(entry["polygons"], (width, height)))
        if "keypoints" in entry:
            points = torch.tensor(entry["keypoints"], dtype=torch.float32)
            target.add_field("keypoints", Keypoints(points, (width, height)))
        targets.append(target)
    return targets


def _check_training(
    model: GeneralizedRCNN | OneStageDetector,
    images: ImageList,
    info: dict[str, Any],
    arrays: Arrays,
    checker: Checker,
) -> None:
    targets = _targets(info, images)
    if "proposals0.boxes" in arrays:
        with torch.no_grad():
            proposals = add_ground_truth(model.rpn.predict(model.backbone(images.tensors), images), targets)
        _check_proposals(proposals, info.get("num_train_proposals_incl_gt"), arrays, checker)
    losses = model(images, targets)
    checker.same("loss_names", sorted(losses), sorted(info["losses"]))
    for name, expected in info["losses"].items():
        checker.relative(name, losses[name], expected, LOSS)
    total = torch.stack(list(losses.values())).sum()
    checker.relative("total", total, info["total"], LOSS)
    total.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    # Far below the others a norm is rounding alone: no shift of a whole heat map changes its softmax.
    floor = GRADIENT_NOISE * max(info["grad_norms"].values())
    for name, expected in info["grad_norms"].items():
        gradient = gradients[name]
        norm = 0.0 if gradient is None else float(gradient.double().norm())
        checker.relative(f"grad.{name}", norm, expected, GRADIENT, floor=floor)
    without = [name for name, gradient in gradients.items() if gradient is None]
    checker.same("parameters_without_grad", sorted(without), sorted(info["parameters_without_grad"]))
