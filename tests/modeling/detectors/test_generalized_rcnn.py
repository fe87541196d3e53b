"""Whole detectors: every kind trains, detects, and has the same losses on empty images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.modeling.detectors.build import build_detection_model
from maskrcnn_benchmark.structures import BoxList, to_image_list
from maskrcnn_benchmark.structures.model_input import ModelInput, StoredLogits
from maskrcnn_benchmark.utils.errors import ConfigError, UsageError

Cfg = Callable[..., Any]
Batch = tuple[list[Tensor], list[BoxList]]
BASE = {"loss_objectness", "loss_rpn_box_reg"}
BOX = BASE | {"loss_classifier", "loss_box_reg"}

KINDS: dict[str, tuple[list[Any], set[str]]] = {
    "mask": ([], BOX | {"loss_mask"}),
    "lst": (["LST"], BOX | {"loss_mask", "loss_distill"}),
    "c4": (["C4"], BOX | {"loss_mask"}),
    "c4_alone": (["C4", "MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR", False], BOX | {"loss_mask"}),
    "faster": (["MODEL.MASK_ON", False], BOX),
    "agnostic": (["MODEL.CLS_AGNOSTIC_BBOX_REG", True], BOX | {"loss_mask"}),
    "xconv": (
        [
            *("MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "FPNXconv1fcFeatureExtractor"),
            *("MODEL.ROI_BOX_HEAD.CONV_HEAD_DIM", 8, "MODEL.ROI_BOX_HEAD.NUM_STACKED_CONVS", 2),
            *(
                "MODEL.ROI_BOX_HEAD.USE_GN",
                True,
                "MODEL.ROI_MASK_HEAD.USE_GN",
                True,
                "MODEL.FPN.USE_GN",
                True,
            ),
        ],
        BOX | {"loss_mask"},
    ),
    "conv1x1": (
        ["MODEL.ROI_MASK_HEAD.PREDICTOR", "MaskRCNNConv1x1Predictor", "MODEL.ROI_MASK_HEAD.RESOLUTION", 14],
        BOX | {"loss_mask"},
    ),
    "gn_fc": (["MODEL.ROI_BOX_HEAD.USE_GN", True, "MODEL.FPN.USE_RELU", True], BOX | {"loss_mask"}),
    "rpn_only": (["MODEL.RPN_ONLY", True], BASE),
}


@pytest.fixture
def build(
    small_cfg: Cfg, lst_overrides: tuple[Any, ...], c4_overrides: tuple[Any, ...]
) -> Callable[..., Any]:
    """Function (overrides) -> small model; "LST" and "C4" stand for their groups of overrides."""

    def make(*overrides: Any) -> Any:
        torch.manual_seed(0)
        groups = {"LST": lst_overrides, "C4": c4_overrides}
        flat: list[Any] = []
        for item in overrides:
            flat += groups.get(item, (item,)) if isinstance(item, str) else (item,)
        return build_detection_model(small_cfg(*flat))

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_detection(build: Callable[..., Any], batch: Batch, kind: str) -> None:
    overrides, keys = KINDS[kind]
    model = build(*overrides)
    images, targets = batch
    distill = StoredLogits([targets[0].bbox[1:], torch.zeros(0, 4)], [torch.rand(1, 4), torch.zeros(0, 4)])
    losses = model(ModelInput(to_image_list(images), targets, stored_logits=distill))
    assert set(losses) == keys
    assert all(v.dim() == 0 and torch.isfinite(v) for v in losses.values())
    sum(losses.values()).backward()
    # the topmost FPN level holds no box in small images, so its gradient may be zero, but it is there
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []

    detections = model.eval()(images)
    assert [d.size for d in detections] == [(96, 64), (56, 80)]
    for boxlist in detections:
        assert torch.isfinite(boxlist.bbox).all()
        if kind == "rpn_only":
            objectness = boxlist.get_field("objectness")
            assert torch.equal(objectness, objectness.sort(descending=True).values)
            continue
        assert len(boxlist) == 10 and boxlist.get_field("labels").min() >= 1
        if "loss_mask" in keys:
            mask = boxlist.get_field("mask")
            assert mask.shape[:2] == (10, 1) and mask.min() >= 0 and mask.max() <= 1


@pytest.mark.parametrize("kind", ["mask", "lst", "c4", "xconv", "rpn_only"])
def test_images_without_objects_give_the_same_losses(
    build: Callable[..., Any], make_target: Callable[..., BoxList], kind: str
) -> None:
    overrides, keys = KINDS[kind]
    model = build(*overrides)
    losses = model([torch.randn(3, 64, 96)], [make_target([], [])])
    assert set(losses) == keys and all(v.requires_grad for v in losses.values())
    assert all(losses[k].item() == 0 for k in keys & {"loss_mask", "loss_box_reg", "loss_distill"})
    sum(losses.values()).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_no_proposals_at_all(build: Callable[..., Any], make_target: Callable[..., BoxList]) -> None:
    model = build("MODEL.RPN.MIN_SIZE", 1000)
    losses = model([torch.randn(3, 64, 96)], [make_target([], [])])
    sum(losses.values()).backward()
    assert losses["loss_classifier"].item() == 0
    (detections,) = model.eval()([torch.randn(3, 64, 96)])
    assert len(detections) == 0 and detections.get_field("mask").shape == (0, 1, 28, 28)


def test_query_class_selects_positives(build: Callable[..., Any], batch: Batch) -> None:
    model = build("MODEL.MASK_ON", False)
    seen: list[Tensor] = []
    original = model.roi_heads.box.sampler.sample

    def spy(*args: Any) -> list[BoxList]:
        sampled = original(*args)
        seen.extend(p.get_field("labels") for p in sampled)
        return sampled

    model.roi_heads.box.sampler.sample = spy
    model(ModelInput(to_image_list(batch[0]), batch[1], query_classes=[4, 0]))
    assert set(seen[0].tolist()) == {0, 4} and set(seen[1].tolist()) == {0, 5}


def test_distillation_gradient_reaches_classifier_but_not_scale(
    build: Callable[..., Any], batch: Batch
) -> None:
    model = build("LST")
    images, targets = batch
    cosines = model.eval().box_cosine(images, [t.bbox for t in targets])
    assert [c.shape for c in cosines] == [(2, 6), (1, 6)] and not cosines[0].requires_grad
    model.train()
    stored = StoredLogits([t.bbox for t in targets], [c[:, :4] for c in cosines])
    inputs = ModelInput(to_image_list(images), targets, stored_logits=stored)
    assert model(inputs)["loss_distill"].item() == pytest.approx(0, abs=1e-9)
    stored.teacher_cosine[0] += 0.5
    loss = model(inputs)["loss_distill"]
    assert loss.item() == pytest.approx(2 * 3 * 0.25 / 3, rel=1e-4)
    loss.backward()
    predictor = model.roi_heads.box.predictor
    assert predictor.scale_cls.grad is None and predictor.bbox_pred.weight.grad is None
    assert predictor.cls_score.weight.grad[1:4].abs().sum() > 0
    assert predictor.cls_score.weight.grad[[0, 4, 5]].abs().sum() == 0
    assert model.backbone.fpn.fpn_inner1.weight.grad.abs().sum() > 0
    short = StoredLogits(stored.boxes[:1], stored.teacher_cosine[:1])
    with pytest.raises(ValueError, match="2 images but 1 lists of stored logits"):
        ModelInput(to_image_list(images), targets, stored_logits=short)


def test_mask_loss_trains_the_classifier_rows(build: Callable[..., Any], batch: Batch) -> None:
    model = build("LST")
    model(*batch)["loss_mask"].backward()
    grad = model.roi_heads.box.predictor.cls_score.weight.grad
    used = grad.abs().sum(dim=1) > 0
    assert used.tolist() == [False, True, False, False, True, True]
    rows = model.roi_heads.mask_class_weights(torch.tensor([5, 1, 5]))
    assert torch.allclose(rows, model.roi_heads.all_mask_class_weights()[[5, 1, 5]], atol=1e-6)


def test_pasted_masks(build: Callable[..., Any], batch: Batch) -> None:
    model = build("MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS", True).eval()
    for detections, shape in zip(model(batch[0]), [(64, 96), (80, 56)], strict=True):
        mask = detections.get_field("mask")
        assert mask.dtype == torch.bool and mask.shape == (10, 1, *shape)


def test_all_forms_of_a_call_are_one(build: Callable[..., Any], batch: Batch) -> None:
    """As in torchvision, and with a ModelInput: a list of tensors, an ImageList, one 4-d tensor."""
    images, targets = [image[:, :56, :56] for image in batch[0]], batch[1]
    forms = (images, torch.stack(images), to_image_list(images))
    calls = [(form, targets) for form in forms] + [(ModelInput(to_image_list(images), targets),)]
    results = []
    for call in calls:
        torch.manual_seed(1)
        results.append({name: loss.item() for name, loss in build()(*call).items()})
    assert results[0] and all(result == results[0] for result in results)
    detections = [build().eval()(form) for form in (*forms, ModelInput(to_image_list(images)))]
    assert all(torch.equal(f[0].bbox, detections[0][0].bbox) for f in detections)


def test_seeds_fix_what_is_sampled(build: Callable[..., Any], batch: Batch) -> None:
    def losses(seeds: list[int], state: int) -> dict[str, float]:
        model = build("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8, "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 8)
        torch.manual_seed(state)
        result = model(ModelInput(to_image_list(batch[0]), batch[1], seeds=seeds))
        return {name: loss.item() for name, loss in result.items()}

    assert losses([3, 4], 0) == losses([3, 4], 1) != losses([5, 6], 0)


def test_padded_batch_equals_list_of_images(build: Callable[..., Any], batch: Batch) -> None:
    model = build().eval()
    for a, b in zip(model(batch[0]), model(to_image_list(batch[0])), strict=True):
        assert torch.equal(a.bbox, b.bbox)


def test_autocast(build: Callable[..., Any], batch: Batch) -> None:
    model = build("LST")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(*batch)
        sum(losses.values()).backward()
        detections = model.eval()(batch[0])
    assert all(torch.isfinite(v) and v.dtype == torch.float32 for v in losses.values())
    assert all(d.bbox.dtype == torch.float32 and len(d) == 10 for d in detections)


def test_bad_images(build: Callable[..., Any], batch: Batch) -> None:
    model = build()
    images, targets = batch
    images[0][:] = float("nan")
    losses = model(images, targets)
    assert not torch.isfinite(sum(losses.values()))  # for the guard of the training loop
    with pytest.raises(UsageError, match="not finite"):
        model.eval()(images)


def test_calls_that_cannot_work(build: Callable[..., Any], batch: Batch) -> None:
    model = build()
    with pytest.raises(ValueError, match="targets are needed"):
        model(batch[0])
    with pytest.raises(ValueError, match="2 images but 1 targets"):
        model(batch[0], batch[1][:1])
    with pytest.raises(UsageError, match="FPNCosinePredictor"):
        model.box_cosine(batch[0], [torch.zeros(1, 4)] * 2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["MODEL.KEYPOINT_ON", True], "ROI_KEYPOINT_HEAD.SHARE_BOX_FEATURE_EXTRACTOR"),
        (["MODEL.META_ARCHITECTURE", "GeneralisedRCNN"], "GeneralizedRCNN"),
        (["MODEL.RPN.RPN_HEAD", "SingleConvHead"], "SingleConvRPNHead"),
        (["MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR", True], "SHARE_BOX_FEATURE_EXTRACTOR"),
        (["MODEL.ROI_MASK_HEAD.USE_MLPMASK", True], "USE_BBOX2MASK"),
        (["MODEL.ROI_MASK_HEAD.PREDICTOR", "MaskXRCNNC4Predictor"], "USE_BBOX2MASK"),
        (["MODEL.USE_DISTILL", True, "MODEL.NUM_DISTILL_CLASSES", 3], "FPNCosinePredictor"),
        (["LST", "MODEL.NUM_DISTILL_CLASSES", 6], "NUM_DISTILL_CLASSES"),
        (["MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "ResNet50Conv5ROIFeatureExtractor"], "C4 backbone"),
        (["MODEL.BACKBONE.CONV_BODY", "R-10", "MODEL.NECK", "none"], "set MODEL.NECK fpn"),
    ],
)
def test_configs_that_cannot_work(build: Callable[..., Any], overrides: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(*overrides)


def test_resolution_must_fit(build: Callable[..., Any], batch: Batch) -> None:
    with pytest.raises(ConfigError, match="RESOLUTION is 14"):
        build("MODEL.ROI_MASK_HEAD.RESOLUTION", 14)(*batch)


def test_full_size_models_build_without_memory(small_cfg: Cfg, lst_overrides: tuple[Any, ...]) -> None:
    published = (
        *("MODEL.BACKBONE.CONV_BODY", "R-50-FPN", "MODEL.BACKBONE.FREEZE_CONV_BODY_AT", 5),
        *("MODEL.RESNETS.TRANS_FUNC", "BottleneckWithFixedBatchNorm"),
        *("MODEL.RESNETS.STEM_FUNC", "StemWithFixedBatchNorm", "MODEL.RESNETS.STEM_OUT_CHANNELS", 64),
        *("MODEL.RESNETS.RES2_OUT_CHANNELS", 256, "MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 256),
        *("MODEL.ROI_BOX_HEAD.NUM_CLASSES", 1231, "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM", 1024),
        *("MODEL.ROI_MASK_HEAD.CONV_LAYERS", (256, 256, 256, 256)),
    )
    with torch.device("meta"):
        model = build_detection_model(small_cfg(*lst_overrides, *published))
    state = model.state_dict()
    assert len(state) == 316 and sum(p.numel() for p in model.parameters()) == 208883996
    assert sum(p.requires_grad for p in model.parameters()) == 46
    assert state["rpn.anchor_generator.cell_anchors.4"].dtype == torch.float32


def test_crowded_and_tiny_images(small_cfg: Callable[..., Any], make_target: Callable[..., BoxList]) -> None:
    """1500 objects in one image, and images of one pixel or one column."""
    model = build_detection_model(small_cfg()).train()
    corners = torch.stack((torch.arange(1500) % 70, torch.arange(1500) % 45), dim=1).float()
    crowd = make_target(torch.cat((corners, corners + 12), dim=1).tolist(), [1 + i % 5 for i in range(1500)])
    losses = model([torch.randn(3, 64, 96)], [crowd])
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    for size in ((1, 1), (40, 1), (1, 40)):
        height, width = size
        target = make_target([[0, 0, width - 1, height - 1]], [2], (width, height))
        losses = model([torch.randn(3, *size)], [target])
        assert all(bool(torch.isfinite(loss)) for loss in losses.values())
        model.eval()
        (detections,) = model([torch.randn(3, *size)])
        assert bool(torch.isfinite(detections.bbox).all())
        model.train()
