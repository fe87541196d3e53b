"""Mask R-CNN R-50-FPN beside torchvision's at 800x1216, and the cost of 1231 classes.

Rows `inference` and `training step` compare whole passes with the same weights, picture and objects
(model_pairs); rows `inference: <stage>` split the first. Rows `1231 classes` compare the LST model with 1231
classes with the same model with 81. Memory is what a pass adds, and for the class rows also parameters and
momentum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from model_pairs import (
    load_lst_config,
    load_model_config,
    make_objects,
    make_ours,
    make_peer,
    peer_detections,
    peer_losses,
    trainable,
)
from model_stages import STAGES, Clock, clock_ours, clock_peer
from timing import median_ms, peak_mb
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image

from maskrcnn_benchmark.layers.masks import paste_masks
from maskrcnn_benchmark.modeling.detectors.generalized_rcnn import GeneralizedRCNN

PAIR_BUDGET_S = 60.0
TARGETS = {"inference": 1.0, "training step": 1.0, "1231 classes": 1.15}
SMALL_SIZE = (192, 256)


def _row(
    case: str,
    size: tuple[int, int],
    peer: str,
    times: tuple[float, float],
    memory: tuple[float | None, float | None] = (None, None),
) -> dict[str, Any]:
    """One line of the table."""
    both = None not in memory
    return {
        "case": case,
        "picture": f"{size[0]}x{size[1]}",
        "peer": peer,
        "ours_ms": round(times[0], 1),
        "peer_ms": round(times[1], 1),
        "ratio": round(times[0] / times[1], 3) if times[1] else None,
        "target": TARGETS.get(case),
        "ours_mb": round(memory[0], 1) if memory[0] is not None else None,
        "peer_mb": round(memory[1], 1) if memory[1] is not None else None,
        "memory_ratio": round(memory[0] / memory[1], 3) if both else None,  # type: ignore[operator]
    }


def _picture(size: tuple[int, int], device: torch.device) -> Tensor:
    """A normalised picture of noise (1,3,H,W)."""
    source = torch.Generator().manual_seed(2)
    return (120 * torch.rand(1, 3, *size, generator=source) - 60).to(device)


def _update(model: nn.Module, losses: Callable[[], dict[str, Tensor]]) -> Callable[[], object]:
    """One training step with SGD and momentum, gradients cleared before it."""
    optimizer = torch.optim.SGD(trainable(model), lr=1e-6, momentum=0.9, weight_decay=1e-4)

    def step() -> object:
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses().values())).sum().backward()
        optimizer.step()
        return None

    return step


def _inference(
    ours: GeneralizedRCNN, peer: Any, image: Tensor, size: tuple[int, int]
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Detection with pasted masks of both models."""

    def run_ours() -> object:
        with torch.no_grad():
            found = ours(image)[0]
            return paste_masks(found.get_field("mask")[:, 0], found.bbox, *size, 0.5, 1)

    def run_peer() -> object:
        with torch.no_grad():
            return peer_detections(peer, image)

    return run_ours, run_peer


def _stage_rows(
    ours: GeneralizedRCNN, peer: Any, image: Tensor, size: tuple[int, int], rounds: int
) -> list[dict[str, Any]]:
    """The split of an inference pass by stage; both models are changed and of no use afterwards."""
    device = image.device
    clocks = Clock(device), Clock(device)
    clock_ours(ours, clocks[0])
    clock_peer(peer, clocks[1])
    paste = clocks[0].wrap(paste_masks, "paste")
    paste_peer = clocks[1].wrap(paste_masks_in_image, "paste")
    with torch.no_grad():
        for _ in range(rounds + 1):
            found = ours(image)[0]
            paste(found.get_field("mask")[:, 0], found.bbox, *size, 0.5, 1)
            clocks[0].end_round()
            peer_detections(peer, image, paste_peer)
            clocks[1].end_round()
    times = {stage: (clocks[0].median_ms(stage), clocks[1].median_ms(stage)) for stage in STAGES}
    return [_row(f"inference: {stage}", size, "torchvision", pair) for stage, pair in times.items()]


def _pair_rows(device: torch.device, size: tuple[int, int], quick: bool) -> list[dict[str, Any]]:
    """Ours beside torchvision's: inference, training step, stages of inference."""
    cfg = load_model_config()
    ours = make_ours(cfg)
    peer = make_peer(ours, cfg).to(device)
    ours.to(device)
    image = _picture(size, device)
    ours.eval()
    peer.eval()
    calls = _inference(ours, peer, image, size)
    budget, least = (0.0, 1) if quick else (PAIR_BUDGET_S, 5)
    times = median_ms(list(calls), device, budget, least)
    memory = tuple(None if quick else peak_mb(call, device) for call in calls)
    rows = [_row("inference", size, "torchvision", (times[0], times[1]), (memory[0], memory[1]))]
    targets, peer_targets = make_objects(*size)
    targets = [target.to(device) for target in targets]
    peer_targets = [{key: value.to(device) for key, value in one.items()} for one in peer_targets]
    ours.train()
    peer.train()
    steps = [
        _update(ours, lambda: ours(image, targets)),
        _update(peer, lambda: peer_losses(peer, image, peer_targets)),
    ]
    times = median_ms(steps, device, budget, least)
    memory = tuple(None if quick else peak_mb(call, device) for call in steps)
    rows.append(_row("training step", size, "torchvision", (times[0], times[1]), (memory[0], memory[1])))
    ours.eval()
    peer.eval()
    return rows + _stage_rows(ours, peer, image, size, 1 if quick else 5)


def _state_mb(model: nn.Module) -> float:
    """Parameters, buffers and momentum of the trained parameters in MiB."""
    tensors = [*model.parameters(), *model.buffers(), *trainable(model)]
    return sum(t.numel() * t.element_size() for t in tensors) / 2**20


def _class_rows(device: torch.device, size: tuple[int, int], quick: bool) -> list[dict[str, Any]]:
    """The LST model with 1231 classes beside the same model with 81."""
    image = _picture(size, device)
    targets = [target.to(device) for target in make_objects(*size)[0]]
    models = [make_ours(load_lst_config(count, small=quick)).to(device).train() for count in (1231, 81)]
    steps = [_update(model, lambda model=model: model(image, targets)) for model in models]  # type: ignore[misc]
    budget, least = (0.0, 1) if quick else (PAIR_BUDGET_S, 5)
    times = median_ms(steps, device, budget, least)
    memory: list[float | None] = [None, None]
    if not quick:
        for i, (model, step) in enumerate(zip(models, steps, strict=True)):
            model.zero_grad(set_to_none=True)
            used = peak_mb(step, device)
            memory[i] = None if used is None else used + _state_mb(model)
    return [_row("1231 classes", size, "81 classes", (times[0], times[1]), (memory[0], memory[1]))]


def measure(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """All rows; `quick` takes a small picture, one round, and a small backbone for the class rows."""
    if quick:
        return _pair_rows(device, SMALL_SIZE, quick) + _class_rows(device, SMALL_SIZE, quick)
    full = (800, 1216)
    return (
        _pair_rows(device, full, quick)
        + _class_rows(device, full, quick)
        + _class_rows(device, SMALL_SIZE, quick)
    )
