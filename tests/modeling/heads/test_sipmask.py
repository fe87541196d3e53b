"""SipMask: towers, mask loss, masks of the image's size and their scores."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskrcnn_benchmark.config.load import load_config
from maskrcnn_benchmark.layers.crop_split import crop_split, crop_split_gt
from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.modeling.heads.common import gather_at_points
from maskrcnn_benchmark.modeling.heads.fcos.targets import Positives
from maskrcnn_benchmark.modeling.heads.sipmask.loss import basis_mask_loss
from maskrcnn_benchmark.modeling.heads.sipmask.postprocess import assemble_full_masks
from maskrcnn_benchmark.modeling.heads.sipmask.targets import (
    MaskPositives,
    SipMaskOutputs,
    half_size_masks,
    mask_positives,
)
from maskrcnn_benchmark.structures import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList
from maskrcnn_benchmark.structures.masks import SegmentationMask
from maskrcnn_benchmark.structures.model_input import ModelInput
from maskrcnn_benchmark.utils.errors import UsageError

PLAIN = {"train_nms": 0.0, "weight_eps": 0.0}


def _model(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_detection_model(load_config(f"configs/tiny/{name}.yaml"))


@pytest.fixture(scope="module")
def benchmark() -> nn.Module:
    return _model("sipmask")


@pytest.fixture(scope="module")
def plusplus() -> nn.Module:
    return _model("sipmask_plusplus")


def _images(side: int, *originals: tuple[int, int]) -> ImageList:
    tensors = torch.randn(len(originals), 3, side, side, generator=torch.Generator().manual_seed(1))
    return ImageList(tensors, [(side, side)] * len(originals), originals)


def _target(side: int, boxes: list[list[int]], labels: list[int]) -> BoxList:
    target = BoxList(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), (side, side))
    target.add_field("labels", torch.tensor(labels, dtype=torch.int64))
    masks = torch.zeros(len(boxes), side, side, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1 : y2 + 1, x1 : x2 + 1] = True
    target.add_field("masks", SegmentationMask(masks, (side, side), mode="mask"))
    return target


@pytest.mark.parametrize(("name", "side"), [("sipmask", 64), ("sipmask_544", 64), ("sipmask_plusplus", 256)])
def test_losses_with_and_without_objects(name: str, side: int) -> None:
    model = _model(name).train()
    with torch.no_grad():  # predicted boxes have an area
        model.get_submodule("rpn.head").bbox_pred.bias.fill_(1.5)
    images = _images(side, (side, side), (side, side))
    full = model(images, [_target(side, [[8, 8, side // 2, side // 2]], [2]), _target(side, [], [])])
    empty = model(images, [_target(side, [], []), _target(side, [], [])])
    assert full.keys() == empty.keys() >= {"loss_cls", "loss_reg", "loss_centerness", "loss_mask"}
    assert ("loss_mask_score" in full) == (name == "sipmask_plusplus")
    assert float(full["loss_mask"].detach()) > 0 == float(empty["loss_mask"].detach())
    for losses in (full, empty):
        model.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        learned = [(n, p.grad) for n, p in model.named_parameters() if p.requires_grad]
        assert all(g is not None and g.isfinite().all() for _, g in learned), name


@pytest.mark.parametrize("name", ["sipmask", "sipmask_544"])
def test_half_precision_and_objects_of_a_pixel(name: str) -> None:
    model = _model(name).train()  # 128 pixels: torch leaves bfloat16 gradients of 1x1 maps unset
    with torch.no_grad():
        model.get_submodule("rpn.head").bbox_pred.bias.fill_(1.5)
    images = _images(128, (50, 60), (50, 60))
    targets = [
        _target(128, [[8, 8, 40, 40]], [2]),
        _target(128, [[10, 10, 10, 10], [11, 11, 13, 13]], [1, 1]),
    ]
    exact = model(images, targets)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(images, targets)
        detections = model.eval()(images)
    assert all(abs(float(exact[k].detach()) - float(mixed[k].detach())) < 0.05 for k in exact)
    torch.stack(list(mixed.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert all(f.bbox.dtype == f.get_field("scores").dtype == torch.float32 for f in detections)


def test_norm_without_use_is_held_but_does_not_learn() -> None:
    model = _model("sipmask_544")
    align = model.get_submodule("rpn.head.feat_align")
    held = dict(align.norm.named_parameters())
    assert not any(p.requires_grad for p in held.values())
    images = _images(64, (64, 64))
    with torch.no_grad():
        before = model.rpn(model.backbone(images.tensors)).boxes.logits[0]
        align.norm.weight.fill_(7.0)
        after = model.rpn(model.backbone(images.tensors)).boxes.logits[0]
    assert torch.equal(before, after)


def test_basis_masks_equal_the_published_order(benchmark: nn.Module) -> None:
    """Upsample, join, convolve, as the paper shows it."""
    head = benchmark.get_submodule("rpn.head")
    channels = head.sip_mask_lat0.in_channels // 3
    maps = [torch.randn(2, channels, 16 // 2**i, 24 // 2**i) for i in range(3)]
    with torch.no_grad():
        raised = [F.interpolate(m, scale_factor=2**i, mode="bilinear") for i, m in enumerate(maps)]
        hidden = F.relu(head.sip_mask_lat0(torch.cat(raised, dim=1)))
        expected = F.interpolate(F.relu(head.sip_mask_lat(hidden)), scale_factor=4, mode="bilinear")
        got = head.basis_masks(maps)
    assert got.shape == (2, 32, 64, 96)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4)


def test_offsets_carry_no_gradient_to_the_boxes(benchmark: nn.Module) -> None:
    head = benchmark.get_submodule("rpn.head")
    align, channels = head.feat_align, head.cls_logits.in_channels
    nn.init.normal_(align.conv_offset.weight, std=0.1)
    distances = torch.rand(1, 4, 8, 8, requires_grad=True)
    x = torch.randn(1, channels, 8, 8, requires_grad=True)
    align(x, distances).sum().backward()
    nn.init.zeros_(align.conv_offset.weight)
    assert distances.grad is None and x.grad is not None and align.conv_offset.weight.grad is not None


def test_values_at_points() -> None:
    levels = [torch.arange(2 * 8 * 6.0).reshape(2, 8, 2, 3), -torch.arange(2 * 8 * 2.0).reshape(2, 8, 1, 2)]
    rows = gather_at_points(levels, torch.ones(4).long(), torch.tensor([7, 0, 5, 6]))
    assert torch.equal(rows[0], levels[1][1, :, 0, 1]) and torch.equal(rows[1], levels[0][1, :, 0, 0])
    assert torch.equal(rows[2], levels[0][1, :, 1, 2]) and torch.equal(rows[3], levels[1][1, :, 0, 0])
    none = torch.zeros(0, dtype=torch.int64)
    assert gather_at_points(levels, none, none).shape == (0, 8)


def _plain_mask_loss(positives: MaskPositives, basis: Tensor) -> Tensor:
    """All planes of all quadrants, cropped, as published."""
    cells = positives.coefficients.reshape(len(positives.boxes), 4, -1)
    planes = torch.einsum("nck,khw->chwn", cells, basis).sigmoid()
    predicted = crop_split(planes.contiguous(), positives.boxes, 2)
    expected = crop_split_gt(
        positives.masks[positives.objects].permute(1, 2, 0).float().contiguous(), positives.boxes
    )
    losses = F.binary_cross_entropy(predicted, expected, reduction="none").sum(dim=(0, 1))
    areas = (positives.boxes[:, 2:] - positives.boxes[:, :2]).prod(dim=1)
    return (losses / areas * positives.weights).sum() / len(positives.boxes)


def test_mask_loss_equals_the_plain_one() -> None:
    g = torch.Generator().manual_seed(0)
    basis = torch.rand(1, 3, 20, 24, generator=g).requires_grad_()
    rows = torch.randn(4, 12, generator=g).requires_grad_()
    boxes = torch.tensor([[2.0, 3, 15, 14], [-4, -2, 9, 9], [10.5, 6.2, 40, 30], [5, 5, 5.5, 9]])
    masks = torch.rand(2, 20, 24, generator=g) > 0.5
    positives = MaskPositives(
        rows, boxes, torch.tensor([1.0, 0.5, 2, 0]), torch.zeros(4).long(), torch.tensor([0, 1, 1, 0]), masks
    )
    outputs = SipMaskOutputs(None, [rows.reshape(1, 12, 2, 2)], basis)  # type: ignore[arg-type]
    gradients = []
    for loss in (basis_mask_loss(outputs, [positives], halving=False), _plain_mask_loss(positives, basis[0])):
        gradients.append((loss.detach(), *torch.autograd.grad(loss, (rows, basis))))
    for mine, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, expected)
    halved = basis_mask_loss(outputs, [positives], halving=True)
    assert gradients[0][0] < 1 or torch.allclose(halved * 2, gradients[0][0])


def test_loss_above_one_is_halved() -> None:
    basis = torch.full((1, 1, 8, 8), 5.0)
    rows = torch.ones(1, 4)
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    zero = torch.zeros(1).long()
    positives = MaskPositives(rows, torch.tensor([[0.0, 0, 8, 8]]), torch.ones(1), zero, zero, masks)
    outputs = SipMaskOutputs(None, [rows.reshape(1, 4, 1, 1)], basis)  # type: ignore[arg-type]
    full = basis_mask_loss(outputs, [positives], halving=False)
    assert full > 1
    torch.testing.assert_close(basis_mask_loss(outputs, [positives], halving=True), full / 2)


def test_positives_without_area_or_weight(benchmark: nn.Module) -> None:
    """Predicted boxes of no area leave; boxes without intersection get weight 0 instead of NaN."""
    model = benchmark.train()
    images, target = _images(64, (64, 64)), _target(64, [[8, 8, 40, 40]], [2])
    outputs = model.rpn(model.backbone(images.tensors))
    for level in outputs.boxes.distances:
        level.data.zero_()
    points = model.rpn.points(outputs)
    _, positives = model.rpn.loss.fcos.assign(points, [target])
    assert len(positives) and not len(mask_positives(outputs, points, positives, [target], **PLAIN)[0].boxes)
    losses = model.rpn.losses(outputs, ModelInput(images, [target]))
    assert float(losses["loss_mask"].total.detach()) == 0
    for level in outputs.boxes.distances:
        level.data[:, :2], level.data[:, 2:] = -40.0, 50.0  # far away
    far = mask_positives(outputs, points, positives, [target], **PLAIN)[0]
    assert len(far.boxes) and not far.weights.any()


def test_masks_of_targets_at_half_size() -> None:
    target = _target(9, [[0, 0, 3, 3], [8, 8, 8, 8]], [1, 1])
    masks = half_size_masks(target, (3, 8))
    assert masks.shape == (2, 3, 8) and masks[0, :2, :2].all() and not masks[0, 2:].any()
    bare = BoxList(torch.zeros(1, 4), (9, 9))
    with pytest.raises(ValueError, match="none"):
        half_size_masks(bare, (3, 8))


def _scene() -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    boxes = torch.tensor(
        [[4.0, 6, 50, 40], [-9, -9, 20.5, 31.3], [30, 2, 90, 70], [10, 10, 10.5, 10.5], [70, 1, 80, 9]]
    )
    return torch.randn(5, 12, generator=g), torch.rand(3, 24, 32, generator=g) * 3, boxes


@pytest.mark.parametrize("original", [(48, 64), (97, 131), (31, 40), (1, 1)])
@pytest.mark.parametrize("resize", ["legacy", "legacy_axes", "exact"])
def test_image_masks_equal_plain_resizing(original: tuple[int, int], resize: str) -> None:
    rows, basis, boxes = _scene()
    size = (47, 61)
    (geometry,) = ImageList(torch.zeros(1, 3, 48, 64), [size], [original]).geometry
    masks = assemble_full_masks(rows, basis, boxes, geometry, threshold=0.4, resize=resize)
    assert masks.shape == (5, *original) and masks.dtype == torch.bool
    planes = torch.einsum("nck,khw->chwn", rows.reshape(5, 4, 3), basis).sigmoid()
    soft = crop_split(planes.contiguous(), boxes / 2, 2).permute(2, 0, 1)
    if resize == "exact":  # every pixel of the image looks up its location in the plane
        y = (torch.arange(original[0]) + 0.5) * size[0] / original[0]
        x = (torch.arange(original[1]) + 0.5) * size[1] / original[1]
        grid = torch.stack(torch.meshgrid(y / 24 - 1, x / 32 - 1, indexing="ij")[::-1], dim=-1)
        value = F.grid_sample(soft[None], grid[None], align_corners=False, padding_mode="border")[0]
    else:
        if resize == "legacy":
            sigma = min(size[0] / original[0], size[1] / original[1])
            sides = [int(24 * (2 / sigma)), int(32 * (2 / sigma))]
        else:
            factors = [torch.tensor(2.0) / torch.tensor(a / b) for a, b in zip(size, original, strict=True)]
            sides = [int(24 * float(factors[0])), int(32 * float(factors[1]))]
        full = F.interpolate(soft[None], size=sides, mode="bilinear")[0]
        value = torch.zeros(5, *original)
        height, width = min(sides[0], original[0]), min(sides[1], original[1])
        value[:, :height, :width] = full[:, :height, :width]
    clear = (value - 0.4).abs() > 1e-4
    assert torch.equal(masks[clear], (value > 0.4)[clear])
    assert clear.float().mean() > 0.99 or original == (1, 1)


@pytest.mark.parametrize(("name", "side"), [("sipmask", 64), ("sipmask_plusplus", 256)])
def test_detections_have_masks_of_the_original_size(name: str, side: int) -> None:
    model = _model(name).eval()
    with torch.no_grad():  # everything scores
        model.get_submodule("rpn.head").cls_logits.bias.fill_(0.5)
        model.get_submodule("rpn.head").bbox_pred.bias.fill_(2.0)
    detections = model(_images(side, (50, 70), (33, 20)))
    for boxlist, (height, width) in zip(detections, [(50, 70), (33, 20)], strict=True):
        assert 0 < len(boxlist) <= 20 and tuple(boxlist.size) == (side, side)
        assert boxlist.get_field("mask").shape == (len(boxlist), 1, height, width)
        assert boxlist.has_field("mask_scores") == (name == "sipmask_plusplus")


def test_no_detection(benchmark: nn.Module) -> None:
    head = benchmark.eval().get_submodule("rpn.head")
    kept = head.cls_logits.bias.detach().clone()
    with torch.no_grad():
        head.cls_logits.bias.fill_(-50.0)
        detections = benchmark(_images(64, (50, 70)))[0]
        head.cls_logits.bias.copy_(kept)
    assert len(detections) == 0 and detections.get_field("mask").shape == (0, 1, 50, 70)


def test_mask_scores(plusplus: nn.Module) -> None:
    towers = plusplus.get_submodule("rpn.head")
    classes = towers.mask_scoring.out_channels
    scores = towers.score_masks(torch.rand(3, 127, 140))
    assert scores.shape == (3, classes) and (scores >= 0).all()
    assert towers.score_masks(torch.zeros(0, 127, 127)).shape == (0, classes)
    with pytest.raises(ValueError, match="127"):
        towers.score_masks(torch.rand(1, 126, 200))


def test_scores_of_masks_do_not_train_the_masks(plusplus: nn.Module) -> None:
    model = plusplus.train()
    images, target = _images(256, (256, 256)), _target(256, [[20, 20, 200, 180]], [2])
    losses = model(images, [target])
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    parameters = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(losses["loss_mask_score"], parameters, allow_unused=True)
    touched = {n for n, grad in zip(names, grads, strict=True) if grad is not None}
    assert touched == {n for n in names if "scoring" in n}


def test_length_of_positives() -> None:
    zero = torch.zeros(3).long()
    assert len(Positives(zero, zero, zero, zero, torch.zeros(3, 4))) == 3


@pytest.mark.parametrize(
    ("layer", "what"),
    [("sip_cof", "mask coefficients"), ("sip_mask_lat", "basis masks"), ("mask_scoring", "mask scores")],
)
def test_masks_that_are_not_finite_are_refused(layer: str, what: str) -> None:
    model, images = _model("sipmask_plusplus").eval(), _images(256, (256, 256))
    head = model.get_submodule("rpn.head")
    with torch.no_grad():
        head.cls_logits.bias.fill_(2.0)
        head.bbox_pred.bias.fill_(1.5)
        assert len(model(images)[0])
        head.get_submodule(layer).weight.fill_(float("nan"))
        with pytest.raises(UsageError, match=f"the {what} are not finite"):
            model(images)
