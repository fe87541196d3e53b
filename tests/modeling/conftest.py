"""Small configs, images and targets shared by the model tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from maskrcnn_benchmark.config.defaults import get_cfg
from maskrcnn_benchmark.structures import BoxList, SegmentationMask


@pytest.fixture
def small_cfg() -> Callable[..., Any]:
    """Function (overrides) -> config of a tiny FPN Mask R-CNN with basic blocks, 5 classes and background."""

    def build(*overrides: Any) -> Any:
        cfg = get_cfg()
        cfg.merge_from_list(
            [
                *("MODEL.MASK_ON", True, "MODEL.BACKBONE.CONV_BODY", "R-10-FPN"),
                *("MODEL.BACKBONE.FREEZE_CONV_BODY_AT", 0),
                *("MODEL.RESNETS.TRANS_FUNC", "BasicBlockWithGN", "MODEL.RESNETS.STEM_FUNC", "StemWithGN"),
                *("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 8),
                *("MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 16, "MODEL.GROUP_NORM.NUM_GROUPS", 4),
                *("MODEL.RPN.USE_FPN", True, "MODEL.RPN.ANCHOR_STRIDE", (4, 8, 16, 32, 64)),
                *("MODEL.RPN.ANCHOR_SIZES", (8, 16, 32, 64, 128), "MODEL.RPN.PRE_NMS_TOP_N_TRAIN", 50),
                *("MODEL.RPN.PRE_NMS_TOP_N_TEST", 50, "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST", 40),
                *("MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN", 60, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 32),
                *("MODEL.ROI_HEADS.SCORE_THRESH", 0.0, "MODEL.ROI_HEADS.DETECTIONS_PER_IMG", 10),
                *("MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "FPN2MLPFeatureExtractor"),
                *("MODEL.ROI_BOX_HEAD.PREDICTOR", "FPNPredictor", "MODEL.ROI_BOX_HEAD.NUM_CLASSES", 6),
                *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7, "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 2),
                *("MODEL.ROI_BOX_HEAD.POOLER_SCALES", (0.25, 0.125, 0.0625, 0.03125)),
                *("MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM", 32, "MODEL.ROI_MASK_HEAD.RESOLUTION", 28),
                *("MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR", "MaskRCNNFPNFeatureExtractor"),
                *("MODEL.ROI_MASK_HEAD.POOLER_SCALES", (0.25, 0.125, 0.0625, 0.03125)),
                *("MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO", 2, "MODEL.ROI_MASK_HEAD.CONV_LAYERS", (8, 8)),
                *("MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR", False),
            ]
        )
        cfg.merge_from_list(list(overrides))
        return cfg

    return build


LST = (
    *("MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "FPN2MLPCosineFeatureExtractor"),
    *("MODEL.ROI_BOX_HEAD.PREDICTOR", "FPNCosinePredictor", "MODEL.ROI_MASK_HEAD.USE_BBOX2MASK", True),
    *("MODEL.ROI_MASK_HEAD.USE_MLPMASK", True, "MODEL.USE_DISTILL", True, "MODEL.NUM_DISTILL_CLASSES", 3),
)

C4 = (
    *("MODEL.BACKBONE.CONV_BODY", "R-50-C4", "MODEL.RESNETS.TRANS_FUNC", "BottleneckWithFixedBatchNorm"),
    *("MODEL.RESNETS.STEM_FUNC", "StemWithFixedBatchNorm", "MODEL.RESNETS.WIDTH_PER_GROUP", 4),
    *(
        "MODEL.RESNETS.BACKBONE_OUT_CHANNELS",
        32,
        "MODEL.RPN.USE_FPN",
        False,
        "MODEL.RPN.ANCHOR_STRIDE",
        (16,),
    ),
    *("MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "ResNet50Conv5ROIFeatureExtractor"),
    *("MODEL.ROI_BOX_HEAD.PREDICTOR", "FastRCNNPredictor", "MODEL.ROI_BOX_HEAD.POOLER_SCALES", (0.0625,)),
    *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 14, "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 0),
    *("MODEL.ROI_MASK_HEAD.FEATURE_EXTRACTOR", "ResNet50Conv5ROIFeatureExtractor"),
    *("MODEL.ROI_MASK_HEAD.POOLER_SCALES", (0.0625,), "MODEL.ROI_MASK_HEAD.RESOLUTION", 14),
    *("MODEL.ROI_MASK_HEAD.SHARE_BOX_FEATURE_EXTRACTOR", True),
)


@pytest.fixture
def lst_overrides() -> tuple[Any, ...]:
    """Overrides that turn the small config into a distilling LST model with 3 old classes."""
    return LST


@pytest.fixture
def c4_overrides() -> tuple[Any, ...]:
    """Overrides that turn the small config into a C4 model with a shared extractor."""
    return C4


@pytest.fixture
def make_target() -> Callable[..., BoxList]:
    """Function (boxes, labels, size) -> ground truth whose masks are the boxes as polygons."""

    def build(boxes: list[list[float]], labels: list[int], size: tuple[int, int] = (96, 64)) -> BoxList:
        target = BoxList(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), size)
        target.add_field("labels", torch.tensor(labels, dtype=torch.int64))
        polygons = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes]
        target.add_field("masks", SegmentationMask(polygons, size))
        return target

    return build


@pytest.fixture
def batch(make_target: Callable[..., BoxList]) -> tuple[list[Tensor], list[BoxList]]:
    """Two images of different size (64x96 and 80x56) and their objects."""
    generator = torch.Generator().manual_seed(5)
    images = [torch.randn(3, 64, 96, generator=generator), torch.randn(3, 80, 56, generator=generator)]
    first = make_target([[4, 6, 40, 50], [50, 10, 90, 60]], [1, 4])
    second = make_target([[2, 2, 50, 70]], [5], (56, 80))
    return images, [first, second]
