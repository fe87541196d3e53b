"""The choice points a config names: one registry per key, nothing else.

An entry is a class with a `from_cfg` class method (signature given beside each registry), or a plain builder
function for backbones, necks, heads and detectors. Modules register themselves when the matching `build`
module imports them.
"""

from __future__ import annotations

from typing import Any

from maskrcnn_benchmark.utils.registry import Registry

META_ARCHITECTURES: Registry[Any] = Registry(
    "MODEL.META_ARCHITECTURE", "maskrcnn_benchmark/modeling/detectors/build.py"
)
"""Function (cfg) -> detector."""

BACKBONES: Registry[Any] = Registry(
    "MODEL.BACKBONE.CONV_BODY", "maskrcnn_benchmark/modeling/backbones/build.py"
)
"""Function (cfg) -> nn.Module: images -> list of maps, finest first; attribute `feature_specs`."""

NECKS: Registry[Any] = Registry("MODEL.NECK", "maskrcnn_benchmark/modeling/necks/build.py")
"""Function (cfg, feature specs of the backbone) -> nn.Module: list of maps -> list of maps, with attribute
`feature_specs`; None for no neck.
"""

HEADS: Registry[Any] = Registry("MODEL.HEAD", "maskrcnn_benchmark/modeling/heads/build.py")
"""Function (cfg, feature specs of the neck) -> OneStageHead. The name is that of the model family."""

STEMS: Registry[Any] = Registry("MODEL.RESNETS.STEM_FUNC", "maskrcnn_benchmark/modeling/backbones/blocks.py")
"""Function (cfg) -> ResNet stem module."""

TRANSFORMATIONS: Registry[Any] = Registry(
    "MODEL.RESNETS.TRANS_FUNC", "maskrcnn_benchmark/modeling/backbones/blocks.py"
)
"""Function (cfg) -> BlockFactory."""

RPN_HEADS: Registry[Any] = Registry("MODEL.RPN.RPN_HEAD", "maskrcnn_benchmark/modeling/rpn/head.py")
"""Class with from_cfg(cfg, in_channels, num_anchors)."""

BOX_FEATURE_EXTRACTORS: Registry[Any] = Registry(
    "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "maskrcnn_benchmark/modeling/roi_heads/box_head/extractors.py"
)
"""Class with from_cfg(cfg, in_channels) and attribute `out_channels`."""

BOX_PREDICTORS: Registry[Any] = Registry(
    "MODEL.ROI_BOX_HEAD.PREDICTOR", "maskrcnn_benchmark/modeling/roi_heads/box_head/predictors.py"
)
"""Class with from_cfg(cfg, in_channels)."""

MASK_FEATURE_EXTRACTORS: Registry[Any] = Registry(
    "MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR", "maskrcnn_benchmark/modeling/roi_heads/mask_head/extractors.py"
)
"""Class with from_cfg(cfg, in_channels) and attribute `out_channels`."""

MASK_PREDICTORS: Registry[Any] = Registry(
    "MODEL.ROI_MASK_HEAD.PREDICTOR", "maskrcnn_benchmark/modeling/roi_heads/mask_head/predictors.py"
)
"""Class with from_cfg(cfg, in_channels)."""

KEYPOINT_FEATURE_EXTRACTORS: Registry[Any] = Registry(
    "MODEL.ROI_KEYPOINT_HEAD.FEATURE_EXTRACTOR",
    "maskrcnn_benchmark/modeling/roi_heads/keypoint_head/head.py",
)
"""Class with from_cfg(cfg, in_channels) and attribute `out_channels`."""

KEYPOINT_PREDICTORS: Registry[Any] = Registry(
    "MODEL.ROI_KEYPOINT_HEAD.PREDICTOR", "maskrcnn_benchmark/modeling/roi_heads/keypoint_head/head.py"
)
"""Class with from_cfg(cfg, in_channels)."""
