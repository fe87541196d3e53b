"""Losses and gradients of one batch are the same however its images are spread over processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.modeling.losses import LossTerm, mean_losses
from maskrcnn_benchmark.modeling.rpn.inference import add_ground_truth
from maskrcnn_benchmark.structures import BoxList, to_image_list
from maskrcnn_benchmark.structures.model_input import ModelInput, StoredLogits
from maskrcnn_benchmark.utils import comm

pytestmark = pytest.mark.dist
IMAGES = 6
SIDE = 64
Case = tuple[Tensor, list[BoxList], list[int], StoredLogits]


def _case(make_target: Callable[..., BoxList], which: str) -> Case:
    """Six images with objects, query classes and stored teacher outputs; `which` empties some of them.

    "empty first": images 0, 1 and 2, all that rank 0 of 2 has, without objects, and no box to distil
    anywhere else but in the last image. "no objects": none anywhere.
    """
    random = torch.Generator().manual_seed(3)
    images = torch.randn(IMAGES, 3, SIDE, SIDE, generator=random)
    targets, boxes, cosines = [], [], []
    for number in range(IMAGES):
        empty = which == "no objects" or (which == "empty first" and number < 3)
        count = 0 if empty else number % 3 + 1
        corner = torch.rand(count, 2, generator=random) * 30
        found = torch.cat([corner, corner + 10 + torch.rand(count, 2, generator=random) * 20], 1)
        labels = [1 + (number + i) % 5 for i in range(count)]
        targets.append(make_target(found.tolist(), labels, (SIDE, SIDE)))
        stored = count if which == "ordinary" or number == IMAGES - 1 else 0
        boxes.append(found[:stored])
        cosines.append(torch.rand(stored, 4, generator=random))
    queries = [0, 0, 3, 4, 0, 1] if which != "no objects" else [0] * IMAGES
    return images, targets, queries, StoredLogits(boxes, cosines)


def _step(cfg: Any, case: Case) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Logged losses and gradients of this process, which has its part of the images."""
    torch.manual_seed(0)
    model = build_detection_model(cfg)
    rank, world = comm.get_rank(), comm.get_world_size()
    mine = slice(rank * IMAGES // world, (rank + 1) * IMAGES // world)
    images, targets, queries, stored = case
    network = DistributedDataParallel(model, broadcast_buffers=False) if world > 1 else model
    torch.manual_seed(rank)  # must not matter
    losses = network(
        ModelInput(
            to_image_list(images[mine]),
            targets[mine],
            query_classes=queries[mine],
            stored_logits=StoredLogits(stored.boxes[mine], stored.teacher_cosine[mine]),
            seeds=list(range(100, 100 + IMAGES))[mine],
        )
    )
    torch.stack(list(losses.values())).sum().backward()
    values = {name: float(value) for name, value in comm.reduce_mean(losses).items()}
    return values, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("which", ["ordinary", "empty first", "no objects"])
def test_losses_and_gradients(
    small_cfg: Callable[..., Any],
    lst_overrides: tuple[Any, ...],
    make_target: Callable[..., BoxList],
    train_ranks: Callable[..., list],
    which: str,
) -> None:
    cfg = small_cfg(*lst_overrides, "MODEL.RPN.FPN_POST_NMS_PER_BATCH", False)
    case = _case(make_target, which)
    ((losses, gradients),) = train_ranks(_step, 1, cfg, case)
    assert len(losses) == 6 and losses["loss_objectness"] > 0
    assert (losses["loss_distill"] > 0) == (losses["loss_mask"] > 0) == (which != "no objects")
    for world in (2, 3):
        for values, found in train_ranks(_step, world, cfg, case):
            assert values == pytest.approx(losses, rel=1e-5, abs=1e-7)
            assert found.keys() == gradients.keys()
            for name, gradient in gradients.items():
                limit = 1e-5 * float(gradient.abs().max()) + 1e-7
                assert float((found[name] - gradient).abs().max()) <= limit, name


def test_images_do_not_depend_on_their_neighbours(
    small_cfg: Callable[..., Any], make_target: Callable[..., BoxList]
) -> None:
    images, targets, *_ = _case(make_target, "ordinary")
    torch.manual_seed(0)
    model = build_detection_model(small_cfg("MODEL.RPN.FPN_POST_NMS_PER_BATCH", False))
    features = model.backbone(images)
    proposals = add_ground_truth(model.rpn.predict(features, to_image_list(images)), targets)
    sampled = model.roi_heads.box.sampler.sample(proposals, targets, None, range(IMAGES))
    order = [4, 2, 0, 5, 1, 3]
    again = model.roi_heads.box.sampler.sample(
        [proposals[i] for i in order], [targets[i] for i in order], None, order
    )
    for place, number in enumerate(order):
        assert torch.equal(again[place].bbox, sampled[number].bbox)
    other = model.roi_heads.box.sampler.sample(proposals, targets, None, range(50, 50 + IMAGES))
    assert any(
        a.bbox.shape != b.bbox.shape or not torch.equal(a.bbox, b.bbox)
        for a, b in zip(other, sampled, strict=True)
    )
    with pytest.raises(ValueError, match="2 seeds for 6 images"):
        model.roi_heads.box.sampler.sample(proposals, targets, None, [1, 2])


def _uneven() -> dict[str, float]:
    """Counts as numbers and tensors; rank 0 has nothing of the first, nobody has anything of the second."""
    rank = comm.get_rank()
    total = torch.tensor(float(rank), requires_grad=True)
    terms = {
        "some": LossTerm(total * 6, 4 * rank),
        "none": LossTerm(total * 0, 0),
        "tensor": LossTerm(total + 1, torch.tensor(1 + rank)),
    }
    return {name: float(value) for name, value in comm.reduce_mean(mean_losses(terms)).items()}


def test_mean_losses(run_ranks: Callable[..., list]) -> None:
    values = run_ranks(_uneven, 3)
    assert values == [pytest.approx({"some": 18 / 12, "none": 0.0, "tensor": 6 / 6})] * 3
    assert LossTerm(torch.tensor(6.0), 0).mean() == 6 and LossTerm(torch.tensor(6.0), 4).mean() == 1.5
