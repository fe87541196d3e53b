"""RetinaNet as a whole: names, calls, both sources of P6, layouts, ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.modeling.detectors.one_stage import OneStageDetector
from maskrcnn_benchmark.modeling.heads.base import OneStageHead
from maskrcnn_benchmark.modeling.necks.fpn import FPN, LastLevelP6P7
from maskrcnn_benchmark.structures import BoxList
from maskrcnn_benchmark.structures.features import FeatureSpec
from maskrcnn_benchmark.utils import comm
from maskrcnn_benchmark.utils.errors import ConfigError

RETINANET = (
    *("MODEL.RETINANET_ON", True, "MODEL.MASK_ON", False),
    *("MODEL.BACKBONE.CONV_BODY", "R-10-FPN-RETINANET", "MODEL.RETINANET.NUM_CLASSES", 6),
    *("MODEL.RETINANET.ANCHOR_SIZES", (16, 32, 48, 64, 96), "MODEL.RETINANET.NUM_CONVS", 1),
    *("MODEL.RETINANET.INFERENCE_TH", 0.0, "MODEL.RPN.ZERO_OVERLAP_MATCHES", False),
)
Build = Callable[..., OneStageDetector]
Batch = tuple[list[Tensor], list[BoxList]]


@pytest.fixture
def build(small_cfg: Callable[..., Any]) -> Build:
    """Function (overrides) -> a tiny RetinaNet with the same weights each time."""

    def make(*overrides: Any) -> OneStageDetector:
        torch.manual_seed(0)
        return build_detection_model(small_cfg(*RETINANET, *overrides))

    return make


def test_losses_and_detections(build: Build, batch: Batch) -> None:
    model = build()
    losses = model(*batch)
    assert list(losses) == ["loss_retina_cls", "loss_retina_reg"]
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    detections = model.eval()(batch[0])
    assert [b.size for b in detections] == [(96, 64), (56, 80)]
    for boxes in detections:
        assert 0 < len(boxes) <= 100
        scores = boxes.get_field("scores")
        assert (scores[:-1] >= scores[1:]).all() and boxes.get_field("labels").dtype == torch.int64
        assert boxes.bbox.min() >= 0 and (boxes.bbox[:, 2] < boxes.size[0]).all()


@pytest.mark.parametrize("use_c5", [True, False])
def test_where_p6_comes_from(build: Build, batch: Batch, use_c5: bool) -> None:
    model = build("MODEL.RETINANET.USE_C5", use_c5)
    names = [name for name in model.state_dict() if ".fpn." in name]
    assert names[0] == "backbone.fpn.fpn_inner2.weight" and names[-1] == "backbone.fpn.top_blocks.p7.bias"
    assert model.backbone.fpn.top_blocks.p6.in_channels == (64 if use_c5 else 16)
    maps = model.backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(m.shape[2:]) for m in maps] == [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
    assert set(model(*batch)) == {"loss_retina_cls", "loss_retina_reg"}


def test_p7_sees_the_rectified_p6() -> None:
    top = LastLevelP6P7(3, 4, from_c5=True)
    c5, p5 = torch.randn(1, 3, 9, 7), torch.randn(1, 4, 9, 7)
    p6, p7 = top(c5, p5)
    assert p6.shape == (1, 4, 5, 4) and p7.shape == (1, 4, 3, 2) and (p6 < 0).any()
    assert torch.equal(p7, top.p7(p6.relu())) and torch.equal(p6, top.p6(c5))
    other = LastLevelP6P7(4, 4, from_c5=False)
    assert torch.equal(other(c5, p5)[0], other.p6(p5))


def test_an_fpn_ignores_finer_maps() -> None:
    fpn = FPN([FeatureSpec(4, 16), FeatureSpec(5, 32)], 6, extra_pool=False)
    children = [name for name, _ in fpn.named_children()]
    assert children == ["fpn_inner3", "fpn_layer3", "fpn_inner4", "fpn_layer4"]
    maps = [torch.randn(1, 3, 16, 16), torch.randn(1, 4, 8, 8), torch.randn(1, 5, 4, 4)]
    assert [tuple(m.shape) for m in fpn(maps)] == [(1, 6, 8, 8), (1, 6, 4, 4)]
    assert all(torch.equal(a, b) for a, b in zip(fpn(maps), fpn(maps[1:]), strict=True))


def test_torchvision_backbone(build: Build, batch: Batch) -> None:
    model = build("MODEL.BACKBONE.CONV_BODY", "torchvision/mobilenet_v2")
    assert set(model(*batch)) == {"loss_retina_cls", "loss_retina_reg"}


def test_images_without_objects(build: Build, batch: Batch, make_target: Any) -> None:
    model = build()
    empty = [make_target([], [], (96, 64)), make_target([], [], (56, 80))]
    losses = model(batch[0], empty)
    assert losses["loss_retina_reg"] == 0 and losses["loss_retina_cls"].isfinite()
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_calls_that_cannot_work(build: Build, batch: Batch) -> None:
    model = build()
    with pytest.raises(ValueError, match="targets are needed"):
        model(batch[0])
    with pytest.raises(ValueError, match="2 images but 1 targets"):
        model(batch[0], batch[1][:1])


def test_the_contract_names_what_is_missing() -> None:
    """A head without all three methods cannot be made, so that no call of it comes too late."""

    class OnlyForward(OneStageHead[Tensor]):
        def forward(self, features: Sequence[Tensor]) -> Tensor:
            return features[0]

    with pytest.raises(TypeError, match="forward.*losses.*predict"):
        OneStageHead()
    with pytest.raises(TypeError, match="OnlyForward.*losses.*predict"):
        OnlyForward()


def test_strides_of_the_config_must_be_those_of_the_features(build: Build) -> None:
    with pytest.raises(ConfigError, match=r"ANCHOR_STRIDES is \[4, 8, .* have strides \[8, 16, .* set MODEL"):
        build("MODEL.RETINANET.ANCHOR_STRIDES", (4, 8, 16, 32, 64))


def test_autocast(build: Build, batch: Batch) -> None:
    model = build()
    exact = model(*batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(*batch)
        assert all(loss.dtype == torch.float32 for loss in losses.values())
        detections = model.eval()(batch[0])
    assert {n: v.item() for n, v in losses.items()} == pytest.approx(
        {n: v.item() for n, v in exact.items()}, rel=0.05
    )
    assert detections[0].bbox.dtype == detections[0].get_field("scores").dtype == torch.float32


def _step(cfg: Any, images: Tensor, targets: list[BoxList]) -> tuple[dict[str, float], list[Tensor]]:
    """Logged losses and gradients of this process, which has its part of the images."""
    torch.manual_seed(0)
    model = build_detection_model(cfg)
    rank, world = comm.get_rank(), comm.get_world_size()
    mine = slice(rank * len(images) // world, (rank + 1) * len(images) // world)
    network = DistributedDataParallel(model, broadcast_buffers=False) if world > 1 else model
    losses = network(list(images[mine]), targets[mine])
    torch.stack(list(losses.values())).sum().backward()
    values = {name: float(value) for name, value in comm.reduce_mean(losses).items()}
    return values, [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.dist
def test_losses_do_not_depend_on_the_number_of_ranks(
    small_cfg: Callable[..., Any], make_target: Any, train_ranks: Callable[..., list]
) -> None:
    """Rank 0 of 2 has no object at all."""
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    some = [
        make_target([[4, 6, 40, 50], [20, 10, 60, 60]], [1, 4], (64, 64)),
        make_target([[2, 2, 30, 30]], [5]),
    ]
    targets = [make_target([], [], (64, 64))] * 2 + some
    ((losses, gradients),) = train_ranks(_step, 1, small_cfg(*RETINANET), images, targets)
    assert losses["loss_retina_reg"] > 0
    for values, rank_gradients in train_ranks(_step, 2, small_cfg(*RETINANET), images, targets):
        assert values == pytest.approx(losses, rel=1e-5)
        for a, b in zip(rank_gradients, gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6 + 1e-5 * float(b.abs().max()))
