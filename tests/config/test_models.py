"""Which family, neck and keys a config chooses: by MODEL.HEAD and MODEL.NECK, and by published switches."""

from __future__ import annotations

from typing import Any

import pytest

from maskrcnn_benchmark.config.compat import split_conv_body
from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.config.keys import get_value
from maskrcnn_benchmark.config.load import clone_with, load_config
from maskrcnn_benchmark.config.models import (
    class_count,
    class_count_key,
    families,
    has_roi_heads,
    model_family,
    model_neck,
    predicts_masks,
)
from maskrcnn_benchmark.utils.errors import ConfigError

P6P7 = ("MODEL.BACKBONE.CONV_BODY", "R-50-FPN-RETINANET", "DATALOADER.SIZE_DIVISIBILITY", 32)
BARE = ("MODEL.BACKBONE.CONV_BODY", "R-50", "DATALOADER.SIZE_DIVISIBILITY", 32)
FPN = ("MODEL.RPN.USE_FPN", True, "MODEL.RPN.ANCHOR_STRIDE", (4, 8, 16, 32, 64))
CLASSES = {
    "rcnn": "MODEL.ROI_BOX_HEAD.NUM_CLASSES",
    "rpn": None,
    "retinanet": "MODEL.RETINANET.NUM_CLASSES",
    "fcos": "MODEL.FCOS.NUM_CLASSES",
    "sipmask": "MODEL.SIPMASK.NUM_CLASSES",
}


@pytest.mark.parametrize(
    ("pairs", "name", "neck"),
    [
        ((), "rcnn", "none"),
        (("MODEL.HEAD", "rcnn", "MODEL.BACKBONE.CONV_BODY", "R-50-C5"), "rcnn", "none"),
        (("MODEL.BACKBONE.CONV_BODY", "R-50-FPN", *FPN), "rcnn", "fpn"),
        (("MODEL.BACKBONE.CONV_BODY", "torchvision/resnet18", *FPN), "rcnn", "fpn"),
        (("MODEL.BACKBONE.CONV_BODY", "R-50", *FPN), "rcnn", "fpn"),
        (("MODEL.BACKBONE.CONV_BODY", "FBNet"), "rcnn", "none"),
        (("MODEL.RPN_ONLY", True), "rpn", "none"),
        (("MODEL.HEAD", "rpn"), "rpn", "none"),
        (("MODEL.RPN_ONLY", True, "MODEL.FCOS_ON", True, *P6P7), "fcos", "fpn_p6p7"),
        (("MODEL.HEAD", "fcos", "MODEL.RPN_ONLY", True, *P6P7), "fcos", "fpn_p6p7"),
        (("MODEL.HEAD", "fcos", "MODEL.FCOS_ON", True, *BARE), "fcos", "fpn_p6p7"),
        (("MODEL.HEAD", "sipmask", "MODEL.NECK", "fpn_p6p7", *BARE), "sipmask", "fpn_p6p7"),
        (("MODEL.SIPMASK_ON", True, *BARE), "sipmask", "fpn_p6p7"),
        (("MODEL.RETINANET_ON", True, "MODEL.BACKBONE.CONV_BODY", "torchvision/x"), "retinanet", "fpn_p6p7"),
    ],
)
def test_choice(pairs: tuple[Any, ...], name: str, neck: str) -> None:
    cfg = clone_with(get_cfg(), pairs)
    assert (model_family(cfg).name, model_neck(cfg)) == (name, neck)
    assert has_roi_heads(cfg) == (name == "rcnn") and predicts_masks(cfg) == (name == "sipmask")
    assert class_count_key(cfg) == CLASSES[name]
    assert class_count(cfg) == (None if name == "rpn" else 81)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (("MODEL.HEAD", "fcoss"), "unknown MODEL.HEAD 'fcoss'; did you mean fcos"),
        (
            ("MODEL.HEAD", "fcos", "MODEL.SIPMASK_ON", True),
            "HEAD is fcos, but MODEL.SIPMASK_ON is True, .*sipm",
        ),
        (("MODEL.HEAD", "rcnn", "MODEL.RPN_ONLY", True), "HEAD is rcnn, but MODEL.RPN_ONLY is True"),
        (("MODEL.HEAD", "rpn", "MODEL.FCOS_ON", True), "HEAD is rpn, but MODEL.FCOS_ON is True"),
        (("MODEL.FCOS_ON", True, "MODEL.SIPMASK_ON", True), "FCOS_ON and MODEL.SIPMASK_ON are True"),
        (("MODEL.HEAD", "fcos", "MODEL.MASK_ON", True, *BARE), "model of MODEL.HEAD fcos has no RoI heads"),
        (("MODEL.HEAD", "fcos", "LST.ENABLED", True, *BARE), "set MODEL.HEAD '', or LST.ENABLED False"),
        (
            ("MODEL.NECK", "fpn"),
            "NECK is fpn, but MODEL.BACKBONE.CONV_BODY R-50-C4 names the neck none: .* R-50",
        ),
        (
            ("MODEL.NECK", "fpn", "MODEL.FCOS_ON", True, *P6P7),
            "NECK is fpn, but MODEL.BACKBONE.CONV_BODY R-50-FPN-RETINANET names the neck fpn_p6p7",
        ),
        (
            ("MODEL.NECK", "fpn", "MODEL.FCOS_ON", True, *BARE),
            "MODEL.NECK fpn, which does not fit MODEL.FCOS_ON",
        ),
        (("MODEL.NECK", "fpn_p7", *BARE), "MODEL.NECK fpn_p7, which does not fit MODEL.HEAD rcnn"),
    ],
)
def test_contradictions_name_both_keys(pairs: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        clone_with(get_cfg(), pairs)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("R-50-FPN-RETINANET", ("R-50", "fpn_p6p7")),
        ("R-101-FPN", ("R-101", "fpn")),
        ("R-50-C4", ("R-50-C4", "none")),
        ("torchvision/resnet18", ("torchvision/resnet18", "")),
        ("FBNet", ("FBNet", "none")),
    ],
)
def test_published_names_hold_a_neck(name: str, parts: tuple[str, str]) -> None:
    assert split_conv_body(name) == parts


def test_records_name_keys_of_the_tree() -> None:
    cfg = get_cfg()
    for family in families():
        keys = [
            family.targets.strides,
            family.targets.anchor_sizes,
            family.classes_key,
            family.detections_key,
        ]
        keys += [f"MODEL.{family.switch}" if family.switch else "", family.deformable_key]
        for key in filter(None, keys):
            get_value(cfg, key)
        assert family.targets.anchors_per_location(cfg) >= 1


def test_default_keys_equal_missing_ones(tmp_path: Any) -> None:
    """A stored config without keys of later versions differs from the present defaults in nothing."""
    from maskrcnn_benchmark.config.load import changed_keys, dump_config

    text = dump_config(load_config(None))
    before = "\n".join(line for line in text.splitlines() if not line.startswith(("  HEAD:", "  NECK:")))
    assert before != text and changed_keys(before, text) == []
    now = dump_config(load_config(None, ["MODEL.HEAD", "rpn"]))
    assert changed_keys(before, now) == ["MODEL.HEAD was '', now rpn"]
