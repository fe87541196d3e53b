"""Mask R-CNN R-50-FPN beside torchvision's at 800x1216, and the cost of 1231 classes.

Rows `inference` and `training step` compare whole passes with the same weights, image, objects and
proposals (model_pairs); rows with a colon split them by stage. Rows `1231 classes` compare a model with
1231 classes with the same model with 81. `_ms` is elapsed time, `_cpu_ms` CPU time on all threads.
Memory is what a pass adds to the resident set at its peak (model and momentum are there already), for the
class rows together with parameters and momentum. `bound_ms` is what convolutions and matrix products need at
the rate of a large matrix product in the same precision, `of_bound` its fraction of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from model_bound import bound_ms, matrix_rate, operations_of
from model_pairs import (
    fix_proposals,
    load_class_config,
    load_model_config,
    make_objects,
    make_ours,
    make_peer,
    make_peer_optimizer,
    peer_detections,
    peer_losses,
    trainable,
)
from model_precision import agreement, autocast, has_bfloat16
from model_stages import INFERENCE, TRAINING, WHOLE, clock_ours, clock_peer, medians_ms
from timing import Call, median_times, peak_mb
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.roi_heads import paste_masks_in_image

from maskrcnn_benchmark.layers.masks import paste_masks
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN
from maskrcnn_benchmark.solver.optimizer import build_optimizer
from maskrcnn_benchmark.utils.timer import Elapsed, StageTimer

FULL_SIZE, SMALL_SIZE, QUICK_SIZE = (800, 1216), (192, 256), (96, 128)
BUDGET_S, ROUNDS = 60.0, 5
STAGE_ROUNDS = 3
TARGETS = {"inference": 0.95, "training step": 0.95}
MIXED_TARGET = 0.5
CLASS_TARGET = 1.15
PREDICTORS = {
    GeneralizedRCNN: ("roi_heads.box.predictor", "roi_heads.mask.predictor"),
    MaskRCNN: ("roi_heads.box_predictor", "roi_heads.mask_predictor"),
}


def _row(
    case: str,
    size: tuple[int, int],
    peer: str,
    times: tuple[Elapsed, Elapsed],
    memory: tuple[float | None, float | None] = (None, None),
    work: str = "",
    target: float | None = None,
    bound: float | None = None,
) -> dict[str, Any]:
    """A row of the table. bound: min milliseconds of ours."""
    ours, other = times
    both = None not in memory
    return {
        "case": case,
        "picture": f"{size[0]}x{size[1]}",
        "peer": peer,
        "ours_ms": round(ours.wall, 1),
        "peer_ms": round(other.wall, 1),
        "ratio": round(ours.wall / other.wall, 3) if other.wall else None,
        "ours_cpu_ms": round(ours.cpu, 1),
        "peer_cpu_ms": round(other.cpu, 1),
        "cpu_ratio": round(ours.cpu / other.cpu, 3) if other.cpu else None,
        "bound_ms": round(bound, 1) if bound is not None else None,
        "of_bound": round(bound / ours.wall, 2) if bound is not None else None,
        "target": target if target is not None else TARGETS.get(case),
        "ours_mb": round(memory[0], 1) if memory[0] is not None else None,
        "peer_mb": round(memory[1], 1) if memory[1] is not None else None,
        "memory_ratio": round(memory[0] / memory[1], 3) if both else None,  # type: ignore[operator]
        "work": work,
    }


def _image(size: tuple[int, int], device: torch.device) -> Tensor:
    """A normalised image of noise (1,3,H,W)."""
    source = torch.Generator().manual_seed(2)
    return (120 * torch.rand(1, 3, *size, generator=source) - 60).to(device)


def _watch(model: nn.Module) -> list[int]:
    """Counts of the boxes and masks that the last pass predicted, updated by hooks."""
    counts = [0, 0]

    def keep(index: int) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Any, ...], _output: Any) -> None:
            counts[index] = len(inputs[0])

        return hook

    for index, name in enumerate(PREDICTORS[type(model)]):
        model.get_submodule(name).register_forward_hook(keep(index))
    return counts


def _work(*sides: list[int]) -> str:
    """Counts of boxes and masks of both, in words."""
    return "; ".join(f"{boxes} boxes {masks} masks" for boxes, masks in sides)


class Step:
    """A training iteration, gradients cleared before it."""

    def __init__(self, optimizer: torch.optim.Optimizer, losses: Callable[[], dict[str, Tensor]]) -> None:
        self.optimizer = optimizer
        self.losses = losses

    def backward(self, total: Tensor) -> None:
        """Compute the gradients of the loss."""
        total.backward()

    def update(self) -> None:
        """Update the weights."""
        self.optimizer.step()

    def __call__(self) -> None:
        """One whole iteration."""
        self.optimizer.zero_grad(set_to_none=True)
        self.backward(torch.stack(list(self.losses().values())).sum())
        self.update()


class Pair:
    """Both models in one mode: `calls` are whole passes, `clocks` time their stages."""

    def __init__(self, device: torch.device, size: tuple[int, int], *, quick: bool = False) -> None:
        cfg = load_model_config(quick=quick)
        self.device, self.size = device, size
        self.ours = make_ours(cfg)
        self.peer = make_peer(self.ours, cfg).to(device)
        self.ours.to(device)
        self.image = _image(size, device)
        targets, peer_targets = make_objects(*size)
        self.targets = [target.to(device) for target in targets]
        self.peer_targets = [{key: value.to(device) for key, value in one.items()} for one in peer_targets]
        fix_proposals(self.ours, self.peer, targets[0], cfg)
        self.counts = [_watch(self.ours), _watch(self.peer)]
        self.optimizers = build_optimizer(cfg, self.ours), make_peer_optimizer(self.peer, cfg)

    def inference(self, clocks: tuple[StageTimer, StageTimer] | None = None) -> list[Call]:
        """Calls of detection with pasted masks, ours and the peer's."""
        self.ours.eval()
        self.peer.eval()
        paste: Callable[..., Tensor] = paste_masks
        paste_peer: Callable[..., Tensor] = paste_masks_in_image
        if clocks is not None:
            paste, paste_peer = clocks[0].wrap(paste, "paste"), clocks[1].wrap(paste_peer, "paste")

        @torch.no_grad()
        def ours() -> object:
            detections = self.ours(self.image)[0]
            return paste(detections.get_field("mask")[:, 0], detections.bbox, *self.size, 0.5, 1)

        @torch.no_grad()
        def peer() -> object:
            return peer_detections(self.peer, self.image, paste_peer)

        return [ours, peer]

    def training(self, clocks: tuple[StageTimer, StageTimer] | None = None) -> list[Call]:
        """Calls of a training iteration, ours and the peer's."""
        self.ours.train()
        self.peer.train()
        steps = [
            Step(self.optimizers[0], lambda: self.ours(self.image, self.targets)),
            Step(self.optimizers[1], lambda: peer_losses(self.peer, self.image, self.peer_targets)),
        ]
        for step, clock in zip(steps, clocks or (), strict=False):
            clock.replace(step, "backward", "backward")
            clock.replace(step, "update", "optimizer")
        return list(steps)

    def rows(self, case: str, make: Callable[[], list[Call]], quick: bool) -> list[dict[str, Any]]:
        """The row of whole passes."""
        calls = make()
        times = median_times(calls, self.device, 0.0 if quick else BUDGET_S, 1 if quick else ROUNDS)
        memory = [None if quick else peak_mb(call, self.device) for call in calls]
        pair, words = (times[0], times[1]), _work(*self.counts)
        bound = bound_ms(operations_of(calls[0]), matrix_rate(self.device, torch.float32))
        return [_row(case, self.size, "torchvision", pair, (memory[0], memory[1]), words, bound=bound)]

    def mixed_rows(self, case: str, make: Callable[[], list[Call]], quick: bool) -> list[dict[str, Any]]:
        """Ours in bfloat16 beside torchvision's in float32 and in bfloat16; none where it is emulated."""
        if not has_bfloat16(self.device):
            return []
        ours, peer = make()
        calls = [autocast(ours, self.device), peer, autocast(peer, self.device)]
        times = median_times(calls, self.device, 0.0 if quick else BUDGET_S, 1 if quick else ROUNDS)
        bound = bound_ms(operations_of(ours), matrix_rate(self.device, torch.bfloat16))
        words = ""
        if case == "inference":
            words = agreement(lambda: self.ours(self.image)[0], self.device)
        return [
            _row(f"{case}, bfloat16", self.size, peer, pair, work=words, target=MIXED_TARGET, bound=bound)
            for peer, pair in (
                ("torchvision float32", (times[0], times[1])),
                ("torchvision bfloat16", (times[0], times[2])),
            )
        ]

    def split(self, quick: bool) -> list[dict[str, Any]]:
        """The rows of the stages; the models stay clocked."""
        clocks = StageTimer(self.device), StageTimer(self.device)
        clock_ours(self.ours, clocks[0])
        clock_peer(self.peer, clocks[1])
        rows = []
        for case, make, stages in (
            ("inference", self.inference, INFERENCE),
            ("training step", self.training, TRAINING),
        ):
            for call, clock in zip(make(clocks), clocks, strict=True):
                clock.rounds.clear()
                for _ in range(1 + (1 if quick else STAGE_ROUNDS)):
                    clock.wrap(call, WHOLE)()
                    clock.end_round()
            medians = [medians_ms(clock, stages) for clock in clocks]
            for stage in medians[0]:
                pair = (medians[0][stage], medians[1][stage])
                rows.append(_row(f"{case}: {stage}", self.size, "torchvision", pair))
        return rows


def _pair_rows(device: torch.device, size: tuple[int, int], quick: bool) -> list[dict[str, Any]]:
    """Ours beside torchvision's: inference, training step, stages of both."""
    pair = Pair(device, size, quick=quick)
    rows = pair.rows("inference", pair.inference, quick)
    rows += pair.mixed_rows("inference", pair.inference, quick)
    rows += pair.rows("training step", pair.training, quick)
    rows += pair.mixed_rows("training step", pair.training, quick)
    return rows + pair.split(quick)


def _state_mb(model: nn.Module) -> float:
    """Parameters, buffers and momentum of the trained parameters in MiB."""
    tensors = [*model.parameters(), *model.buffers(), *trainable(model)]
    return sum(t.numel() * t.element_size() for t in tensors) / 2**20


def _class_rows(device: torch.device, size: tuple[int, int], masks: str, quick: bool) -> list[dict[str, Any]]:
    """A training step with 1231 classes beside one with 81, all else equal."""
    image = _image(size, device)
    objects = make_objects(*size)[0]
    targets = [target.to(device) for target in objects]
    models, steps, counts = [], [], []
    for classes in (1231, 81):
        cfg = load_class_config(masks, classes, quick=quick)
        model = make_ours(cfg).to(device).train()
        fix_proposals(model, None, objects[0], cfg)
        counts.append(_watch(model))
        models.append(model)
        losses = partial(model, image, targets)
        steps.append(Step(build_optimizer(cfg, model), losses))
    times = median_times(list(steps), device, 0.0 if quick else BUDGET_S, 1 if quick else ROUNDS)
    memory: list[float | None] = [None, None]
    if not quick:
        for i, (model, step) in enumerate(zip(models, steps, strict=True)):
            model.zero_grad(set_to_none=True)
            used = peak_mb(step, device)
            memory[i] = None if used is None else used + _state_mb(model)
            model.zero_grad(set_to_none=True)
    case, pair, peaks = f"1231 classes, masks {masks}", (times[0], times[1]), (memory[0], memory[1])
    return [_row(case, size, "81 classes", pair, peaks, _work(*counts), CLASS_TARGET)]


def measure(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """All rows; `quick` takes a small image, few boxes, one round, a small backbone for the class rows."""
    sizes = (QUICK_SIZE,) if quick else (FULL_SIZE, SMALL_SIZE)
    rows = _pair_rows(device, sizes[0], quick)
    for masks in ("from class weights", "per class"):
        for size in sizes:
            rows += _class_rows(device, size, masks, quick)
    return rows
