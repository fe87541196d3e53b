"""The model families, each declared once.

Config checks, detectors, doctor, completeness of weight files and engine read these records; none of them
names a family. A family from outside the package calls `register_family` with its record, and registers its
head with HEADS (modeling/registry.py) under the same name; its section of MODEL is then part of every config.
"""

from __future__ import annotations

from yacs.config import CfgNode

from maskrcnn_benchmark.config.checks.fcos import check_fcos
from maskrcnn_benchmark.config.checks.rcnn import check_rcnn, check_rpn, rcnn_pitfalls
from maskrcnn_benchmark.config.checks.retinanet import check_retinanet
from maskrcnn_benchmark.config.checks.sipmask import SIZE_MULTIPLE, check_sipmask
from maskrcnn_benchmark.config.compat import NO_NECK, chosen_head, chosen_neck
from maskrcnn_benchmark.config.family import ModelFamily, TargetAssignment, UnusedKeys
from maskrcnn_benchmark.config.keys import get_value
from maskrcnn_benchmark.utils.registry import Registry

FAMILIES: Registry[ModelFamily] = Registry("MODEL.HEAD", "maskrcnn_benchmark/config/models.py")


def register_family(family: ModelFamily) -> ModelFamily:
    """Add a family; ValueError when its name is in use."""
    return FAMILIES.register(family.name)(family)


def families() -> list[ModelFamily]:
    """Return all registered families, sorted by name."""
    return [FAMILIES.get(name) for name in FAMILIES.names()]


def model_family(cfg: CfgNode) -> ModelFamily:
    """Return the family that MODEL.HEAD or a published switch chooses.

    Raises ConfigError for an unknown name (with those that resemble it) and for settings that contradict
    each other.
    """
    switches = {family.switch: family.name for family in families() if family.one_stage and family.switch}
    return FAMILIES.get(chosen_head(cfg.MODEL, switches))


def model_neck(cfg: CfgNode) -> str:
    """Return the name of the neck in the NECKS registry.

    MODEL.NECK decides, else the ending of MODEL.BACKBONE.CONV_BODY, else the family. Raises ConfigError when
    the two keys contradict each other.
    """
    return chosen_neck(cfg.MODEL, default=model_family(cfg).necks[0])


def class_count_key(cfg: CfgNode) -> str | None:
    """Return the key of the number of classes with background; None for a model without classes."""
    return model_family(cfg).classes_key


def class_count(cfg: CfgNode) -> int | None:
    """Return the number of classes with background; None for a model without classes."""
    key = class_count_key(cfg)
    return None if key is None else get_value(cfg, key)


def has_roi_heads(cfg: CfgNode) -> bool:
    """Return whether the model is two-stage with RoI heads."""
    return model_family(cfg).roi_heads


def predicts_masks(cfg: CfgNode) -> bool:
    """Return whether detections come with masks."""
    return "masks" in model_family(cfg).predicts(cfg)


def _rpn_anchors_per_location(cfg: CfgNode) -> int:
    """Return the number of anchors per location: with FPN every level has one size."""
    node = cfg.MODEL.RPN
    return len(node.ASPECT_RATIOS) * (1 if len(node.ANCHOR_STRIDE) > 1 else len(node.ANCHOR_SIZES))


_RPN_TARGETS = TargetAssignment(
    "anchors", "MODEL.RPN.ANCHOR_STRIDE", "MODEL.RPN.ANCHOR_SIZES", _rpn_anchors_per_location
)

RCNN = register_family(
    ModelFamily(
        name="rcnn",
        title="R-CNN",
        targets=_RPN_TARGETS,
        necks=("fpn", NO_NECK),
        classes_key="MODEL.ROI_BOX_HEAD.NUM_CLASSES",
        optional_outputs=(("masks", "MASK_ON"), ("keypoints", "KEYPOINT_ON")),
        one_stage=False,
        roi_heads=True,
        detections_key="MODEL.ROI_HEADS.DETECTIONS_PER_IMG",
        published_lr=0.02,
        check=check_rcnn,
        pitfalls=rcnn_pitfalls,
    )
)

RPN = register_family(
    ModelFamily(
        name="rpn",
        title="RPN",
        targets=_RPN_TARGETS,
        necks=("fpn", NO_NECK),
        switch="RPN_ONLY",
        outputs=("proposals",),
        one_stage=False,
        published_lr=0.02,
        check=check_rpn,
    )
)

RETINANET = register_family(
    ModelFamily(
        name="retinanet",
        title="RetinaNet",
        targets=TargetAssignment(
            "anchors",
            "MODEL.RETINANET.ANCHOR_STRIDES",
            "MODEL.RETINANET.ANCHOR_SIZES",
            lambda cfg: len(cfg.MODEL.RETINANET.ASPECT_RATIOS) * cfg.MODEL.RETINANET.SCALES_PER_OCTAVE,
        ),
        necks=("fpn_p6p7",),
        section="RETINANET",
        switch="RETINANET_ON",
        classes_key="MODEL.RETINANET.NUM_CLASSES",
        check=check_retinanet,
    )
)

FCOS = register_family(
    ModelFamily(
        name="fcos",
        title="FCOS",
        targets=TargetAssignment("points", "MODEL.FCOS.FPN_STRIDES"),
        necks=("fpn_p6p7",),
        section="FCOS",
        switch="FCOS_ON",
        classes_key="MODEL.FCOS.NUM_CLASSES",
        deformable_key="MODEL.FCOS.USE_DCN_IN_TOWER",
        check=check_fcos,
    )
)

SIPMASK = register_family(
    ModelFamily(
        name="sipmask",
        title="SipMask",
        targets=TargetAssignment("points", "MODEL.SIPMASK.FPN_STRIDES"),
        necks=("fpn_p6p7",),
        section="SIPMASK",
        switch="SIPMASK_ON",
        classes_key="MODEL.SIPMASK.NUM_CLASSES",
        outputs=("boxes", "masks"),
        size_multiple=SIZE_MULTIPLE,
        deformable_key="MODEL.SIPMASK.USE_DCN_IN_TOWER",
        tensor_keys=(
            ("rpn.head.convs_scoring", "MODEL.SIPMASK.RESCORING"),
            ("rpn.head.mask_scoring", "MODEL.SIPMASK.RESCORING"),
            ("rpn.head.feat_align.conv_adaption.bias", "MODEL.SIPMASK.ALIGN_BIAS"),
            ("rpn.head.feat_align", "MODEL.SIPMASK_ON"),
            ("rpn.head.sip_", "MODEL.SIPMASK_ON"),
        ),
        check=check_sipmask,
        unused=(
            UnusedKeys(
                ("MODEL.SIPMASK.FAST_NMS_TOP_K",),
                lambda cfg: cfg.MODEL.SIPMASK.NMS_TYPE != "fast",
                "MODEL.SIPMASK.NMS_TYPE is not fast",
            ),
            UnusedKeys(
                ("MODEL.SIPMASK.DISTANCES",),
                lambda cfg: not cfg.MODEL.SIPMASK.NORM_REG_TARGETS,
                "MODEL.SIPMASK.NORM_REG_TARGETS is False",
            ),
        ),
    )
)
