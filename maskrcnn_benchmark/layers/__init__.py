"""Native operations, one file each, and small modules without a config."""

from __future__ import annotations

from maskrcnn_benchmark.layers.crop_split import crop_split, crop_split_gt
from maskrcnn_benchmark.layers.deform_conv import DeformConv2d, DFConv2d, deform_conv2d
from maskrcnn_benchmark.layers.deform_psroi_pooling import (
    DeformPSRoIPooling,
    DeformPSRoIPoolingPack,
    deform_psroi_pooling,
)
from maskrcnn_benchmark.layers.fpn_roi_align import assign_levels, fpn_roi_align
from maskrcnn_benchmark.layers.losses import sigmoid_focal_loss, smooth_l1_loss
from maskrcnn_benchmark.layers.masks import image_masks, paste_masks, polygon_mask_targets
from maskrcnn_benchmark.layers.nms import batched_nms, boxlist_nms, nms
from maskrcnn_benchmark.layers.norm import FrozenBatchNorm2d, conv_norm
from maskrcnn_benchmark.layers.quadrant_masks import assemble_masks, quadrant_mask_loss, quadrant_masks
from maskrcnn_benchmark.layers.roi_align import ROIAlign, roi_align
from maskrcnn_benchmark.layers.roi_pool import ROIPool, roi_pool
from maskrcnn_benchmark.utils.native import has_cuda_kernels

__all__ = [
    "DFConv2d",
    "DeformConv2d",
    "DeformPSRoIPooling",
    "DeformPSRoIPoolingPack",
    "FrozenBatchNorm2d",
    "conv_norm",
    "ROIAlign",
    "ROIPool",
    "assemble_masks",
    "assign_levels",
    "batched_nms",
    "boxlist_nms",
    "crop_split",
    "crop_split_gt",
    "deform_conv2d",
    "deform_psroi_pooling",
    "fpn_roi_align",
    "has_cuda_kernels",
    "image_masks",
    "nms",
    "paste_masks",
    "polygon_mask_targets",
    "quadrant_mask_loss",
    "quadrant_masks",
    "roi_align",
    "roi_pool",
    "sigmoid_focal_loss",
    "smooth_l1_loss",
]
