"""Memory of a training step, measured by running it on fake tensors: shapes without content."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from yacs.config import CfgNode

from maskrcnn_benchmark.config.keys import get_value
from maskrcnn_benchmark.config.models import model_family
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.modeling.detectors.one_stage import OneStageDetector
from maskrcnn_benchmark.modeling.matcher import MAX_PAIRS
from maskrcnn_benchmark.modeling.roi_heads.roi_heads import RoIHeads
from maskrcnn_benchmark.modeling.rpn.head import flatten_levels
from maskrcnn_benchmark.solver.precision import DTYPES
from maskrcnn_benchmark.utils.native import load_ops


def step_peak(cfg: CfgNode, *, images: int, height: int, width: int) -> int:
    """Return the peak bytes of forward and backward pass beside weights, gradients and optimizer.

    The layers run on `images` inputs of `height` x `width` with as many RoIs as the head samples,
    under DTYPE. Left out, because they depend on the content: proposal selection and matching (see
    `matching_bytes`), and the work space of convolutions.

    Raises:
        UsageError: the model cannot be built, or the native operations are not there.
    """
    load_ops()
    dtype = DTYPES[cfg.DTYPE]
    with FakeTensorMode():
        model = build_detection_model(cfg).train()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
        live = _LiveBytes(model)
        autocast = nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype=dtype)
        with live:
            with autocast:
                loss = _losses(cfg, model, torch.empty(images, 3, height, width))
            loss.backward()
    return live.peak


def matching_bytes(cfg: CfgNode, objects: int, height: int, width: int) -> int:
    """Estimate the bytes of target assignment for an image with `objects` objects.

    Anchors: the matcher works on groups of objects, so that at most MAX_PAIRS IoUs exist at a time. Points:
    every location is compared with every object. Grid cells and centres need little per location.
    """
    targets = model_family(cfg).targets
    strides = get_value(cfg, targets.strides)
    locations = sum(-(-height // stride) * -(-width // stride) for stride in strides)
    if targets.to == "points":
        return 4 * _LOCATION_ARRAYS * objects * locations
    if targets.to != "anchors":
        return 4 * _LOCATION_ARRAYS * locations
    anchors = locations * targets.anchors_per_location(cfg)
    pairs = min(objects * anchors, max(MAX_PAIRS, anchors))
    return 4 * (_IOU_ARRAYS * pairs + _ANCHOR_ARRAYS * anchors)


_IOU_ARRAYS, _ANCHOR_ARRAYS = 4, 12
"""Arrays of float32 (objects, anchors) and (anchors,) that matching holds together."""

_LOCATION_ARRAYS = 12
"""Arrays of float32 (locations, objects) that assignment to points holds together: distances, tests."""


def _losses(cfg: CfgNode, model: GeneralizedRCNN | OneStageDetector, images: Tensor) -> Tensor:
    """Return a scalar to which every layer contributes as in training."""
    features = model.backbone(images)
    if isinstance(model, OneStageDetector):
        return _total([maps.float() for maps in _tensors(model.rpn(features))])
    logits, deltas = model.rpn.head(features)
    loss = _total([*flatten_levels(logits, 1), *flatten_levels(deltas, 4)])
    if model.roi_heads is None:
        return loss
    return loss + _head_losses(cfg, model.roi_heads, features, len(images))


def _head_losses(cfg: CfgNode, heads: RoIHeads, features: Sequence[Tensor], images: int) -> Tensor:
    node = cfg.MODEL.ROI_HEADS
    positives = int(node.BATCH_SIZE_PER_IMAGE * node.POSITIVE_FRACTION)
    x = heads.box.feature_extractor(features, _boxes(images, node.BATCH_SIZE_PER_IMAGE))
    logits, deltas = heads.box.predictor(x)
    loss = _total([logits.float().log_softmax(1), deltas.float()])
    if heads.mask is None:
        return loss
    labels = torch.zeros(images * positives, dtype=torch.int64)
    if heads.mask.shares_box_features:
        rois = x[labels]
    else:
        rois = heads.mask.feature_extractor(features, _boxes(images, positives))
    weights = None if heads.bbox2mask is None else heads.bbox2mask(heads.box.class_weights()[labels])
    return loss + _total([heads.mask.predictor(rois, labels, weights).float()])


def _boxes(images: int, count: int) -> list[Tensor]:
    return [torch.empty(count, 4) for _ in range(images)]


def _tensors(outputs: Any) -> Iterator[Tensor]:
    """Yield all tensors in the outputs of a one-stage head: dataclasses and lists inside each other."""
    if isinstance(outputs, Tensor):
        yield outputs
        return
    for part in vars(outputs).values() if is_dataclass(outputs) else outputs:
        yield from _tensors(part)


def _total(outputs: Sequence[Tensor]) -> Tensor:
    """Return the sum of squares: its gradient is as large as the outputs."""
    return torch.stack([output.square().sum() for output in outputs]).sum()


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive and no weight, gradient or buffer of `model`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._known: set[int] = set()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        for tensor in (*model.parameters(), *model.buffers(), *gradients):
            self._known.add(id(tensor.untyped_storage()))
        self._model = model  # keeps these storages, and so their ids

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count the storages of its results that are new."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size
