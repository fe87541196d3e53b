"""Faster forward passes for fixed weights: torch.compile, CUDA graphs."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.modeling.detectors.augmented import AugmentedDetector
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.modeling.detectors.one_stage import OneStageDetector
from maskrcnn_benchmark.utils.errors import UsageError

_LOG = logging.getLogger(__name__)

MAX_SHAPES = 8
_WARM_UP_PASSES = 3


def dense_parts(model: nn.Module) -> list[nn.Module]:
    """The parts whose work depends on the size of the image alone: backbone, and the head on its maps.

    The rest (choosing boxes, region heads) has sizes that depend on what is found.
    """
    if isinstance(model, AugmentedDetector):
        model = model.detector
    if isinstance(model, OneStageDetector):
        return [model.backbone, model.rpn]
    if isinstance(model, GeneralizedRCNN):
        return [model.backbone, model.rpn.head]
    raise UsageError(f"{type(model).__name__} has no parts that could be compiled or recorded")


def compile_dense(predictor: Predictor) -> None:
    """Compile the dense parts with torch.compile, for float and half precision, at their first call.

    Sizes become dynamic as soon as a second one is seen.
    """
    for part in dense_parts(predictor.model):
        part.forward = torch.compile(part.forward)


def record_dense(predictor: Predictor) -> None:
    """Replay the dense parts as CUDA graphs, recorded at the first image of every size.

    Raises UsageError without a CUDA device, and for test-time augmentation, which keeps maps of one view
    while it looks at the next.
    """
    if predictor.device.type != "cuda":
        raise UsageError(
            f"--cuda-graphs needs a CUDA device, and MODEL.DEVICE is {predictor.device.type}: leave it out"
        )
    if isinstance(predictor.model, AugmentedDetector):
        raise UsageError("--cuda-graphs does not go with TEST.BBOX_AUG.ENABLED True: set one of them off")
    for part in dense_parts(predictor.model):
        part.forward = GraphedForward(part.forward)


@dataclass(frozen=True)
class _Recording:
    """A graph, the tensors it reads, and what it writes into with every replay."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: Any


class GraphedForward:
    """A forward pass without gradients that is recorded once per shape of its input and replayed.

    The call must do the same work for every input of a shape and never wait for the device. Its result is
    memory of the graph: valid until the next call with the same shapes. The graphs of the MAX_SHAPES shapes
    used last are kept.
    """

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self._call = call
        self._recordings: OrderedDict[tuple, _Recording] = OrderedDict()

    def __call__(self, given: Tensor | Sequence[Tensor]) -> Any:
        """The result for one tensor or a list of tensors, all on a CUDA device."""
        tensors = [given] if isinstance(given, Tensor) else list(given)
        half = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        key = (half, *((tuple(t.shape), t.stride(), t.dtype, t.device) for t in tensors))
        recording = self._recordings.get(key)
        if recording is None:
            if len(self._recordings) >= MAX_SHAPES:
                _LOG.warning(
                    "images have more than %d sizes: a CUDA graph is recorded again and again; leave "
                    "--cuda-graphs out, or give images of one size",
                    MAX_SHAPES,
                )
                self._recordings.popitem(last=False)
            recording = self._recordings[key] = self._record(tensors, isinstance(given, Tensor), half)
        self._recordings.move_to_end(key)
        for static, tensor in zip(recording.inputs, tensors, strict=True):
            static.copy_(tensor)
        recording.graph.replay()
        return recording.outputs

    def _record(self, tensors: Sequence[Tensor], single: bool, half: tuple[bool, torch.dtype]) -> _Recording:
        """Run a few times on a side stream, as recording asks for, then record."""
        inputs = [t.clone(memory_format=torch.preserve_format) for t in tensors]
        given = inputs[0] if single else inputs
        # Autocast would keep converted weights only until its block ends: the graph converts its own.
        with (
            torch.cuda.device(inputs[0].device),
            torch.autocast("cuda", enabled=half[0], dtype=half[1], cache_enabled=False),
        ):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP_PASSES):
                    self._call(given)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                outputs = self._call(given)
        return _Recording(graph, inputs, outputs)
