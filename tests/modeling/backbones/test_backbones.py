"""Backbones and necks: shapes, names, freezing, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d
from maskrcnn_benchmark.modeling.backbones import blocks
from maskrcnn_benchmark.modeling.detectors.build import build_features
from maskrcnn_benchmark.modeling.necks.fpn import FPN
from maskrcnn_benchmark.modeling.registry import BACKBONES, TRANSFORMATIONS
from maskrcnn_benchmark.structures.features import FeatureSpec
from maskrcnn_benchmark.utils.errors import ConfigError

Cfg = Callable[..., Any]
DEFORMABLE = (
    *("MODEL.RESNETS.TRANS_FUNC", "BottleneckWithGN", "MODEL.RESNETS.WIDTH_PER_GROUP", 4),
    *("MODEL.RESNETS.STAGE_WITH_DCN", (False, True, True, True)),
)


@pytest.mark.parametrize("trans", TRANSFORMATIONS.names() or ["BasicBlockWithGN"])
def test_every_block_runs_forward_and_backward(small_cfg: Cfg, trans: str) -> None:
    stem = "StemWithGN" if trans.endswith("GN") else "StemWithFixedBatchNorm"
    cfg = small_cfg("MODEL.RESNETS.TRANS_FUNC", trans, "MODEL.RESNETS.STEM_FUNC", stem)
    cfg.merge_from_list(["MODEL.RESNETS.WIDTH_PER_GROUP", 4])
    backbone = build_features(cfg)
    maps = backbone(torch.randn(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(2, 16, -(-64 // s), -(-96 // s)) for s in (4, 8, 16, 32, 64)]
    sum(m.sum() for m in maps).backward()
    assert all(p.grad is not None for p in backbone.parameters())


ENTRIES = sorted({*BACKBONES.names()} - {"FBNet"})
PUBLISHED = [f"R-{depth}-FPN{ending}" for depth in (10, 18, 50, 101, 152) for ending in ("", "-RETINANET")]


@pytest.mark.parametrize("name", [*ENTRIES, *PUBLISHED])
def test_every_entry_builds_and_runs(small_cfg: Cfg, name: str) -> None:
    channels = {"C4": 32, "C5": 64}.get(name[-2:], 16)
    cfg = small_cfg("MODEL.BACKBONE.CONV_BODY", name, "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", channels)
    if not name.startswith(("R-10", "R-18")) or name.startswith("R-101"):
        cfg.merge_from_list(
            ["MODEL.RESNETS.TRANS_FUNC", "BottleneckWithGN", "MODEL.RESNETS.WIDTH_PER_GROUP", 4]
        )
    backbone = build_features(cfg)
    maps = backbone(torch.randn(1, 3, 32, 32))
    assert backbone.out_channels == channels
    for m, spec in zip(maps, backbone.feature_specs, strict=True):
        side = -(-32 // spec.stride)
        assert m.shape == (1, spec.channels, side, side)
    sum(m.sum() for m in maps).backward()


@pytest.mark.parametrize(("freeze_at", "frozen"), [(-1, []), (0, []), (1, ["stem"]), (2, ["stem", "layer1"])])
def test_freezing(small_cfg: Cfg, freeze_at: int, frozen: list[str]) -> None:
    backbone = build_features(small_cfg("MODEL.BACKBONE.FREEZE_CONV_BODY_AT", freeze_at)).body
    names = {n.split(".")[0] for n, p in backbone.named_parameters() if not p.requires_grad}
    assert names == set(frozen)
    trained = {n.split(".")[0] for n, p in backbone.named_parameters() if p.requires_grad}
    assert not trained & names


def test_stride_place_and_groups(small_cfg: Cfg) -> None:
    overrides = ("MODEL.BACKBONE.CONV_BODY", "R-50-FPN", "MODEL.RESNETS.TRANS_FUNC", "BottleneckWithGN")
    resnext = (*overrides, "MODEL.RESNETS.NUM_GROUPS", 4, "MODEL.RESNETS.WIDTH_PER_GROUP", 2)
    block = build_features(small_cfg(*resnext, "MODEL.RESNETS.STRIDE_IN_1X1", False)).body.layer2[0]
    assert (block.conv1.stride, block.conv2.stride, block.conv2.groups) == ((1, 1), (2, 2), 4)
    assert block.conv2.weight.shape == (16, 4, 3, 3)
    block = build_features(small_cfg(*overrides)).body.layer2[0]
    assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))


def test_names_of_a_basic_block(small_cfg: Cfg) -> None:
    layer = build_features(small_cfg()).body.layer2
    names = [n for n in layer.state_dict() if n.endswith(("conv1.weight", "conv2.weight", "0.weight"))]
    assert names == ["0.downsample.0.weight", "0.conv1.weight", "0.conv2.weight"]
    assert "0.downsample.0.weight" not in build_features(small_cfg()).body.layer1.state_dict()


@pytest.mark.parametrize("trans", ["BottleneckWithGN", "BottleneckWithFixedBatchNorm"])
@pytest.mark.parametrize(("modulated", "groups", "per_tap"), [(False, 1, 2), (True, 1, 3), (True, 4, 12)])
def test_deformable_stages(small_cfg: Cfg, trans: str, modulated: bool, groups: int, per_tap: int) -> None:
    overrides = (*DEFORMABLE, "MODEL.RESNETS.TRANS_FUNC", trans, "MODEL.RESNETS.STRIDE_IN_1X1", False)
    overrides += ("MODEL.RESNETS.WITH_MODULATED_DCN", modulated, "MODEL.RESNETS.DEFORMABLE_GROUPS", groups)
    backbone = build_features(small_cfg(*overrides))
    state = backbone.body.state_dict()
    assert "layer1.0.conv2.weight" in state and "layer1.0.conv2.offset.weight" not in state
    for i, width in ((2, 8), (3, 16), (4, 32)):
        names = [n for n in state if n.startswith(f"layer{i}.0.conv2.")]
        assert [n.split("conv2.")[1] for n in names] == ["offset.weight", "offset.bias", "conv.weight"]
        assert state[names[0]].shape == (9 * per_tap, width, 3, 3)
        assert getattr(backbone.body, f"layer{i}")[0].conv2.conv.stride == (2, 2)
    maps = backbone(torch.randn(2, 3, 64, 96))
    assert [tuple(m.shape[2:]) for m in maps[:4]] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    sum(m.square().sum() for m in maps).backward()
    assert all(p.grad is not None for p in backbone.parameters())
    moved = backbone.body.layer3[0].conv2.offset.bias.grad
    assert moved is not None and moved.any()


@pytest.mark.parametrize(
    ("depth", "interval", "blocks_of"),
    [
        ("R-50", 1, {2: [0, 1, 2, 3], 3: [0, 1, 2, 3, 4, 5], 4: [0, 1, 2]}),
        ("R-50", 3, {2: [0, 3], 3: [0, 3], 4: [0]}),
        ("R-101", 3, {2: [0, 3], 3: list(range(0, 23, 3)), 4: [0]}),  # SipMask++: eleven blocks
        ("R-50", 100, {2: [0], 3: [0], 4: [0]}),
    ],
)
def test_every_nth_block_is_deformable(
    small_cfg: Cfg, depth: str, interval: int, blocks_of: dict[int, list[int]]
) -> None:
    cfg = small_cfg(*DEFORMABLE, "MODEL.RESNETS.DCN_INTERVAL", interval)
    cfg.MODEL.BACKBONE.CONV_BODY = f"{depth}-FPN"
    with torch.device("meta"):
        state = build_features(cfg).state_dict()
    offsets = [name for name in state if name.endswith("conv2.offset.weight")]
    expected = [f"body.layer{s}.{b}.conv2.offset.weight" for s in blocks_of for b in blocks_of[s]]
    assert offsets == expected
    assert all((n.replace("offset", "conv") in state) for n in offsets)


def test_epsilon_of_frozen_batch_norm(small_cfg: Cfg) -> None:
    frozen = ("MODEL.RESNETS.TRANS_FUNC", "BasicBlockWithFixedBatchNorm")
    frozen += ("MODEL.RESNETS.STEM_FUNC", "StemWithFixedBatchNorm")
    backbones = [
        build_features(small_cfg(*frozen, "MODEL.RESNETS.FROZEN_BN_EPS", e)).body for e in (0.0, 0.5)
    ]
    backbones[1].load_state_dict(backbones[0].state_dict())
    for norms in zip(
        *[[m for m in b.modules() if isinstance(m, FrozenBatchNorm2d)] for b in backbones], strict=True
    ):
        assert [norm.eps for norm in norms] == [0.0, 0.5]
    x = torch.randn(1, 3, 32, 32)
    plain, shifted = (backbone.stem(x) for backbone in backbones)
    # The stem is a convolution, the norm (variance 1 here), ReLU and pooling: the scale passes through.
    torch.testing.assert_close(shifted, plain / 1.5**0.5)


@pytest.mark.parametrize("switch", ["RETINANET_ON", "FCOS_ON", "SIPMASK_ON"])
def test_one_stage_families_share_a_neck(small_cfg: Cfg, switch: str) -> None:
    cfg = small_cfg("MODEL.BACKBONE.CONV_BODY", "R-10-FPN-RETINANET", "MODEL.MASK_ON", False)
    cfg.merge_from_list([f"MODEL.{switch}", True])
    for use_c5, channels in ((True, 64), (False, 16)):
        cfg.MODEL.RETINANET.USE_C5 = use_c5
        backbone = build_features(cfg)
        assert backbone.fpn.top_blocks.p6.in_channels == channels
        maps = backbone(torch.randn(1, 3, 64, 128))
        assert [tuple(m.shape[2:]) for m in maps] == [(8, 16), (4, 8), (2, 4), (1, 2), (1, 1)]


def test_deformable_blocks_share_groups_with_resnext(small_cfg: Cfg) -> None:
    overrides = (*DEFORMABLE, "MODEL.RESNETS.NUM_GROUPS", 4, "MODEL.RESNETS.WIDTH_PER_GROUP", 2)
    conv = build_features(small_cfg(*overrides)).body.layer2[0].conv2
    assert conv.conv.weight.shape == (16, 4, 3, 3) and conv.offset.groups == 1


def test_wrong_keys_are_named(small_cfg: Cfg) -> None:
    with pytest.raises(ConfigError, match="R-50-FPN"):
        build_features(small_cfg("MODEL.BACKBONE.CONV_BODY", "R-50-FPNN"))
    with pytest.raises(ConfigError, match="BottleneckWithGN"):
        build_features(small_cfg("MODEL.RESNETS.TRANS_FUNC", "BottleneckWithNG"))
    with pytest.raises(ConfigError, match="STAGE_WITH_DCN: only bottleneck blocks"):
        build_features(small_cfg("MODEL.RESNETS.STAGE_WITH_DCN", (False, True, True, True)))
    with pytest.raises(ConfigError, match=r"STAGE_WITH_DCN must hold four flags.* got \(True, True\)"):
        build_features(small_cfg("MODEL.RESNETS.STAGE_WITH_DCN", (True, True)))
    with pytest.raises(ConfigError, match="DEFORMABLE_GROUPS must be at least 1, got 0"):
        build_features(small_cfg("MODEL.RESNETS.DEFORMABLE_GROUPS", 0))
    with pytest.raises(ConfigError, match="DCN_INTERVAL must be at least 1, got 0"):
        build_features(small_cfg("MODEL.RESNETS.DCN_INTERVAL", 0))
    with pytest.raises(ConfigError, match="DEFORMABLE_GROUPS: 3 groups do not divide the 8 channels"):
        build_features(small_cfg(*DEFORMABLE, "MODEL.RESNETS.DEFORMABLE_GROUPS", 3))
    with pytest.raises(ConfigError, match="BACKBONE_OUT_CHANNELS"):
        build_features(small_cfg("MODEL.BACKBONE.CONV_BODY", "R-50-C4"))


def test_fpn_equals_doubling_and_takes_odd_sizes() -> None:
    torch.manual_seed(0)
    fpn = FPN([FeatureSpec(4, 4), FeatureSpec(6, 8), FeatureSpec(8, 16)], 5)
    sizes = [(16, 24), (8, 12), (4, 6)]
    maps = [torch.randn(1, c, *s) for c, s in zip((4, 6, 8), sizes, strict=True)]
    inner3 = fpn.fpn_inner3(maps[2])
    inner2 = fpn.fpn_inner2(maps[1]) + F.interpolate(inner3, scale_factor=2, mode="nearest")
    out = fpn(maps)
    assert torch.equal(out[1], fpn.fpn_layer2(inner2)) and torch.equal(out[3], out[2][..., ::2, ::2])
    odd = fpn([torch.randn(1, 4, 17, 23), torch.randn(1, 6, 9, 12), torch.randn(1, 8, 5, 6)])
    assert [tuple(m.shape[-2:]) for m in odd] == [(17, 23), (9, 12), (5, 6), (3, 3)]


def test_fpn_names_with_norm() -> None:
    fpn = FPN([FeatureSpec(4, 4)], 4, norm=lambda c: nn.GroupNorm(2, c), relu=True, extra_pool=False)
    assert list(fpn.state_dict())[:4] == [
        "fpn_inner1.0.weight",
        "fpn_inner1.1.weight",
        "fpn_inner1.1.bias",
        "fpn_layer1.0.weight",
    ]
    assert fpn([torch.randn(1, 4, 4, 4)])[0].min() >= 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", ["Bottleneck", "BasicBlock"])
def test_folded_statistics_change_nothing(
    small_cfg: Cfg, monkeypatch: pytest.MonkeyPatch, kind: str, layout: torch.memory_format
) -> None:
    """Maps and gradients of a whole backbone against convolution, then norm, planar, nothing in place."""
    names = ["MODEL.RESNETS.TRANS_FUNC", f"{kind}WithFixedBatchNorm"]
    cfg = small_cfg(*names, "MODEL.RESNETS.STEM_FUNC", "StemWithFixedBatchNorm")
    torch.manual_seed(0)
    model = build_features(cfg).double()
    for name, buffer in model.named_buffers():
        low, high = (0.5, 1.5) if name.endswith(("weight", "running_var")) else (-0.5, 0.5)
        buffer.uniform_(low, high)
    image = torch.randn(2, 3, 64, 96, dtype=torch.float64)

    def run(x: torch.Tensor) -> list[torch.Tensor]:
        model.zero_grad(set_to_none=True)
        maps = model(x)
        sum((m * m.detach().roll(1, -1)).sum() for m in maps).backward()
        return [*maps, *(p.grad for p in model.parameters())]

    found = run(image.contiguous(memory_format=layout))
    monkeypatch.setattr(blocks, "conv_norm", lambda conv, norm, x: norm(conv(x)))
    monkeypatch.setattr(blocks, "_add_relu", lambda x, shortcut: F.relu(x + shortcut))
    for ours, plain in zip(found, run(image), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)


def test_torchvision_backbones_are_not_deformable(small_cfg: Cfg) -> None:
    overrides = ("MODEL.BACKBONE.CONV_BODY", "torchvision/resnet18", *DEFORMABLE[4:])
    with pytest.raises(ConfigError, match="the backbone torchvision/resnet18 cannot be deformable"):
        build_features(small_cfg(*overrides))
