"""Settings of published two-stage configurations, told from their file names.

Used for reference files that name a configuration which neither this project nor the folder holds; the
names follow
fixed rules: `[e2e_]{faster,mask}_rcnn_{R_50,R_101,X_101_32x8d}_{C4,FPN}_1x[_gn].yaml`, `rpn_...`.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

SCALES = (0.25, 0.125, 0.0625, 0.03125)
# What every published FPN configuration sets.
FPN: dict[str, Any] = {
    "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": 256,
    "MODEL.RPN.USE_FPN": True,
    "MODEL.RPN.ANCHOR_STRIDE": (4, 8, 16, 32, 64),
    "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR": "FPN2MLPFeatureExtractor",
    "MODEL.ROI_BOX_HEAD.PREDICTOR": "FPNPredictor",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_SCALES": SCALES,
    "MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR": "MaskRCNNFPNFeatureExtractor",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_MASK_HEAD.POOLER_SCALES": SCALES,
    "MODEL.ROI_MASK_HEAD.RESOLUTION": 28,
    "MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR": False,
    "SOLVER.BASE_LR": 0.02,
}
GROUP_NORM: dict[str, Any] = {
    "MODEL.FPN.USE_GN": True,
    "MODEL.ROI_BOX_HEAD.USE_GN": True,
    "MODEL.ROI_MASK_HEAD.USE_GN": True,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.TRANS_FUNC": "BottleneckWithGN",
    "MODEL.RESNETS.STEM_FUNC": "StemWithGN",
}
RESNEXT: dict[str, Any] = {
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.NUM_GROUPS": 32,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
    "SOLVER.BASE_LR": 0.01,
}


def settings_from_name(config: str) -> dict[str, Any] | None:
    """Dotted keys that differ from the defaults, or None for a name outside the rules."""
    name = PurePosixPath(config).stem.replace("-", "_")
    words = name.split("_")
    if "rcnn" not in words and "rpn" not in words:
        return None
    depth = next((d for d in ("50", "101", "152") if d in words), None)
    level = next((b for b in ("C4", "FPN") if b in words), None)
    if depth is None or level is None:
        return None
    settings: dict[str, Any] = {"SOLVER.BASE_LR": 0.01, "SOLVER.WEIGHT_DECAY": 1e-4}
    settings |= FPN if level == "FPN" else {}
    settings |= GROUP_NORM if "gn" in words else {}
    settings |= RESNEXT if "X" in words else {}
    if "Xconv1fc" in words:
        settings["MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR"] = "FPNXconv1fcFeatureExtractor"
    settings["MODEL.BACKBONE.CONV_BODY"] = f"R-{depth}-{level}"
    settings["MODEL.MASK_ON"] = "mask" in words
    settings["MODEL.RPN_ONLY"] = "rpn" in words
    return settings
