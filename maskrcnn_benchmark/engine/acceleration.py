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
    """Return the parts whose shapes depend on the image size alone: backbone, and the head on its maps.

    The shapes of the rest (proposal selection, RoI heads) depend on the number of detections.
    """
    if isinstance(model, AugmentedDetector):
        model = model.detector
    if isinstance(model, OneStageDetector):
        return [model.backbone, model.rpn]
    if isinstance(model, GeneralizedRCNN):
        return [model.backbone, model.rpn.head]
    raise UsageError(f"{type(model).__name__} has no parts that could be compiled or captured")


def compile_dense_parts(predictor: Predictor) -> None:
    """Compile the dense parts with torch.compile, for float32 and half precision, at their first call.

    Shapes become dynamic at the second image size.
    """
    for part in dense_parts(predictor.model):
        part.forward = torch.compile(part.forward)


def capture_cuda_graphs(predictor: Predictor) -> None:
    """Replay the dense parts as CUDA graphs, captured at the first image of every size.

    Raises UsageError without a CUDA device, and for test-time augmentation, which keeps feature maps of one
    view while it processes the next.
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
class _CapturedGraph:
    """A CUDA graph, its static inputs, and the outputs that every replay overwrites."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: Any


class GraphedForward:
    """A forward pass without gradients that is captured once per input shape and replayed.

    The call must run the same kernels for every input of a shape and never synchronise. Its result is
    memory of the graph, valid until the next call with the same shapes. The graphs of the MAX_SHAPES shapes
    used last are kept.
    """

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self._call = call
        self._graphs: OrderedDict[tuple, _CapturedGraph] = OrderedDict()

    def __call__(self, given: Tensor | Sequence[Tensor]) -> Any:
        """Return the result for one tensor or a list of tensors (..., any shape), all on a CUDA device."""
        tensors = [given] if isinstance(given, Tensor) else list(given)
        half = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        key = (half, *((tuple(t.shape), t.stride(), t.dtype, t.device) for t in tensors))
        captured = self._graphs.get(key)
        if captured is None:
            if len(self._graphs) >= MAX_SHAPES:
                _LOG.warning(
                    "images have more than %d sizes: CUDA graphs are captured again and again; leave "
                    "--cuda-graphs out, or give images of one size",
                    MAX_SHAPES,
                )
                self._graphs.popitem(last=False)
            captured = self._graphs[key] = self._capture(tensors, isinstance(given, Tensor), half)
        self._graphs.move_to_end(key)
        for static, tensor in zip(captured.inputs, tensors, strict=True):
            static.copy_(tensor)
        captured.graph.replay()
        return captured.outputs

    def _capture(
        self, tensors: Sequence[Tensor], single: bool, half: tuple[bool, torch.dtype]
    ) -> _CapturedGraph:
        """Run a few times on a side stream, as capturing requires, then capture."""
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
        return _CapturedGraph(graph, inputs, outputs)
