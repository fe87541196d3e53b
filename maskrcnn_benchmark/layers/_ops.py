"""Loading of the native library, and what torch must know about its operations besides the kernels.

The library is loaded at the first use of an operation, not at import. Fake kernels give shapes to
`torch.compile` and `torch.export`; `roi_align` and its backward pass are each other's derivative
(`_fpn_roi_align.py`, `_roi_pool.py`, `_focal_loss.py`, `_deform_conv.py`, `_deform_psroi_pooling.py`,
`_crop_split.py` and `_quadrant_masks.py` hold the same for their operations).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn_benchmark.layers import _crop_split as crop
from maskrcnn_benchmark.layers import _deform_conv as deform_conv
from maskrcnn_benchmark.layers import _deform_psroi_pooling as deform_psroi
from maskrcnn_benchmark.layers import _focal_loss as focal
from maskrcnn_benchmark.layers import _fpn_roi_align as fpn
from maskrcnn_benchmark.layers import _quadrant_masks as quadrant
from maskrcnn_benchmark.layers import _roi_pool as pool
from maskrcnn_benchmark.utils.errors import UsageError

NAMESPACE = "maskrcnn_benchmark"
PACKAGE = Path(__file__).resolve().parents[1]
BUILD_HINT = "build them with: pip install --no-build-isolation -e ."


def load_ops() -> bool:
    """Make `torch.ops.maskrcnn_benchmark` available; True.

    Raises UsageError when the library is not built or does not fit the installed torch.
    """
    return _load_once(PACKAGE)


# What torch.compiler.assume_constant_result does; calling it would import the whole compiler (1 s, 100 MB).
load_ops._dynamo_marked_constant = True  # type: ignore[attr-defined]


def has_cuda_kernels() -> bool:
    """Whether the library was built with CUDA kernels (setup.py decides; FORCE_CUDA overrides)."""
    load_ops()
    return torch.ops.maskrcnn_benchmark.has_cuda_kernels()


@functools.cache
def _load_once(folder: Path) -> bool:
    libraries = sorted(folder.glob("_C*.so"))
    if not libraries:
        raise UsageError(f"the native operations are not built (no _C*.so in the package); {BUILD_HINT}")
    try:
        torch.ops.load_library(str(libraries[0]))
    except OSError as error:
        raise UsageError(
            f"the native operations in {libraries[0].name} do not load with torch {torch.__version__} "
            f"({error}); re{BUILD_HINT}"
        ) from error
    for name, fake in _FAKE_KERNELS.items():
        torch.library.register_fake(f"{NAMESPACE}::{name}", fake)
    for name, (derivative, save) in _DERIVATIVES.items():
        torch.library.register_autograd(f"{NAMESPACE}::{name}", derivative, setup_context=save)
    return True


def _fake_nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(),), dtype=torch.int64)


def _fake_batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(),), dtype=torch.int64)


def _fake_roi_align(
    features: Tensor, rois: Tensor, spatial_scale: float, pooled_h: int, pooled_w: int, sampling_ratio: int
) -> Tensor:
    return features.new_empty((rois.shape[0], features.shape[1], pooled_h, pooled_w))


def _fake_roi_align_backward(
    grad: Tensor,
    rois: Tensor,
    spatial_scale: float,
    batch: int,
    channels: int,
    height: int,
    width: int,
    sampling_ratio: int,
) -> Tensor:
    return grad.new_empty((batch, channels, height, width))


def _fake_paste_masks(
    masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float, padding: int
) -> Tensor:
    return masks.new_empty((masks.shape[0], height, width), dtype=torch.bool)


def _fake_rasterize_polygons(
    coords: Tensor,
    polygon_offsets: Tensor,
    instance_offsets: Tensor,
    instance_of_box: Tensor,
    boxes: Tensor,
    image_w: int,
    image_h: int,
    size: int,
) -> Tensor:
    return boxes.new_empty((boxes.shape[0], size, size), dtype=torch.bool)


_FAKE_KERNELS: dict[str, Callable[..., Any]] = {
    "nms": _fake_nms,
    "batched_nms": _fake_batched_nms,
    "roi_align": _fake_roi_align,
    "roi_align_backward": _fake_roi_align_backward,
    "fpn_levels": fpn.fake_levels,
    "fpn_roi_align": fpn.fake_forward,
    "fpn_roi_align_backward": fpn.fake_backward,
    "roi_pool": pool.fake_forward,
    "roi_pool_backward": pool.fake_backward,
    "sigmoid_focal_loss": focal.fake_losses,
    "sigmoid_focal_loss_sum": focal.fake_sum,
    "sigmoid_focal_loss_backward": focal.fake_backward,
    "paste_masks": _fake_paste_masks,
    "rasterize_polygons": _fake_rasterize_polygons,
    "deform_conv2d": deform_conv.fake_forward,
    "deform_conv2d_backward": deform_conv.fake_backward,
    "deform_psroi_pooling": deform_psroi.fake_forward,
    "deform_psroi_pooling_backward": deform_psroi.fake_backward,
    "crop_split": crop.fake_forward,
    "crop_split_backward": crop.fake_backward,
    "quadrant_masks": quadrant.fake_masks,
    "quadrant_masks_backward": quadrant.fake_masks_backward,
    "quadrant_mask_loss": quadrant.fake_loss,
    "quadrant_mask_loss_backward": quadrant.fake_loss_backward,
    "assemble_masks": quadrant.fake_assembled,
}


def _save_roi_align(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    features, rois, ctx.spatial_scale, _, _, ctx.sampling_ratio = inputs
    ctx.shape = features.shape
    ctx.save_for_backward(rois)


def _roi_align_grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if not ctx.needs_input_grad[0]:
        return None, None, None, None, None, None
    (rois,) = ctx.saved_tensors
    backward = torch.ops.maskrcnn_benchmark.roi_align_backward
    return (
        backward(grad, rois, ctx.spatial_scale, *ctx.shape, ctx.sampling_ratio),
        None,
        None,
        None,
        None,
        None,
    )


def _save_roi_align_backward(ctx: Any, inputs: Sequence[Any], output: Tensor) -> None:
    grad, rois, ctx.spatial_scale, *_, ctx.sampling_ratio = inputs
    ctx.pooled = grad.shape[2:]
    ctx.save_for_backward(rois)


def _roi_align_grad_grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if not ctx.needs_input_grad[0]:
        return (None,) * 8
    (rois,) = ctx.saved_tensors
    forward = torch.ops.maskrcnn_benchmark.roi_align
    return forward(grad, rois, ctx.spatial_scale, *ctx.pooled, ctx.sampling_ratio), *(None,) * 7


_DERIVATIVES: dict[str, tuple[Callable[..., Any], Callable[..., None]]] = {
    "roi_align": (_roi_align_grad, _save_roi_align),
    "roi_align_backward": (_roi_align_grad_grad, _save_roi_align_backward),
    "fpn_roi_align": (fpn.grad_forward, fpn.save_forward),
    "fpn_roi_align_backward": (fpn.grad_backward, fpn.save_backward),
    "deform_conv2d": (deform_conv.derivative, deform_conv.save),
    "deform_psroi_pooling": (deform_psroi.derivative, deform_psroi.save),
    "roi_pool": (pool.grad_forward, pool.save_forward),
    "roi_pool_backward": (pool.grad_backward, pool.save_backward),
    "sigmoid_focal_loss": (focal.grad_forward, focal.save_forward),
    "sigmoid_focal_loss_sum": (focal.grad_forward, focal.save_forward),
    "sigmoid_focal_loss_backward": (focal.grad_backward, focal.save_backward),
    "crop_split": (crop.grad_forward, crop.save),
    "crop_split_backward": (crop.grad_backward, crop.save),
    "quadrant_masks": (quadrant.grad_masks, quadrant.save_masks),
    "quadrant_mask_loss": (quadrant.grad_loss, quadrant.save_loss),
}
