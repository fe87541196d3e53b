// Table of contents of the native operations: every schema of torch.ops.maskrcnn_benchmark. cpu/<op>.cpp and
// cuda/<op>.cu hold the kernels, masks/ and evaluation/ those that only CPUs run,
// maskrcnn_benchmark/layers/<op>.py the Python function, the fake kernel and the derivative.
//
// Autocast needs no separate kernels, except for deform_conv2d (autocast.cpp): it leaves the arguments
// unchanged, and every kernel takes half precision and computes coordinates and sums in float32 at least.
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#ifdef MRB_WITH_CUDA
constexpr bool kWithCuda = true;
#else
constexpr bool kWithCuda = false;
#endif

TORCH_LIBRARY(maskrcnn_benchmark, m) {
  const std::vector<at::Tag> plain = {at::Tag::pt2_compliant_tag};
  const std::vector<at::Tag> dynamic_size = {at::Tag::pt2_compliant_tag, at::Tag::dynamic_output_shape};

  // Indices of the kept boxes, ascending.
  m.def("nms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor", dynamic_size);
  m.def("batched_nms(Tensor boxes, Tensor scores, Tensor labels, float iou_threshold) -> Tensor",
        dynamic_size);

  // (B, C, H, W), (R, 5) -> (R, C, pooled_h, pooled_w), and its adjoint.
  m.def(
      "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_h, SymInt pooled_w, "
      "int sampling_ratio) -> Tensor",
      plain);
  m.def(
      "roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, SymInt batch, SymInt channels, "
      "SymInt height, SymInt width, int sampling_ratio) -> Tensor",
      plain);

  // (N, 4) -> int32 (N,): the level of each box, counted from the first one.
  m.def(
      "fpn_levels(Tensor boxes, int first_level, int levels, int canonical_level, float canonical_size) "
      "-> Tensor",
      plain);
  // roi_align from the level of each RoI: levels (B, C, H_l, W_l), (R, 5) -> (R, C, pooled_h, pooled_w),
  // and its adjoint, one gradient per level.
  m.def(
      "fpn_roi_align(Tensor[] features, Tensor rois, float[] scales, SymInt pooled_h, SymInt pooled_w, "
      "int sampling_ratio, int canonical_level, float canonical_size) -> Tensor",
      plain);
  m.def(
      "fpn_roi_align_backward(Tensor grad, Tensor rois, float[] scales, SymInt batch, SymInt[] heights, "
      "SymInt[] widths, int sampling_ratio, int canonical_level, float canonical_size, "
      "bool channels_last) -> Tensor[]",
      plain);

  // (B, C, H, W), (B, 2 * offset groups * taps, H', W'), (B, offset groups * taps, H', W') -> (B, O, H', W');
  // and the gradients of input, offset, mask and weight, empty where not needed.
  m.def(
      "deform_conv2d(Tensor input, Tensor offset, Tensor? mask, Tensor weight, Tensor? bias, int[2] stride, "
      "int[2] padding, int[2] dilation) -> Tensor",
      plain);
  m.def(
      "deform_conv2d_backward(Tensor grad, Tensor input, Tensor offset, Tensor? mask, Tensor weight, "
      "int[2] stride, int[2] padding, int[2] dilation, bool[4] needed) -> (Tensor, Tensor, Tensor, Tensor)",
      plain);

  // (B, output_dim * group_size^2, H, W), (R, 5), (R, 2 * classes, part_size, part_size) ->
  // (R, output_dim, pooled_size, pooled_size); and the gradients of input and trans.
  m.def(
      "deform_psroi_pooling(Tensor input, Tensor rois, Tensor? trans, float spatial_scale, int output_dim, "
      "int group_size, int pooled_size, int part_size, int sample_per_part, float trans_std) -> Tensor",
      plain);
  m.def(
      "deform_psroi_pooling_backward(Tensor grad, Tensor input, Tensor rois, Tensor? trans, "
      "float spatial_scale, int output_dim, int group_size, int pooled_size, int part_size, "
      "int sample_per_part, float trans_std, bool[2] needed) -> (Tensor, Tensor)",
      plain);

  // (B, C, H, W), (R, 5) -> maxima (R, C, pooled_h, pooled_w) and their pixels (row * W + column), int32, -1
  // for none.
  m.def(
      "roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_h, SymInt pooled_w) "
      "-> (Tensor, Tensor)",
      plain);
  m.def(
      "roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, SymInt batch, SymInt channels, "
      "SymInt height, SymInt width) -> Tensor",
      plain);

  // Logits (N, C) and integer targets (N,) -> (N, C), or the sum of those in float32 at least.
  m.def("sigmoid_focal_loss(Tensor logits, Tensor targets, float gamma, float alpha) -> Tensor", plain);
  m.def("sigmoid_focal_loss_sum(Tensor logits, Tensor targets, float gamma, float alpha) -> Tensor", plain);
  m.def(
      "sigmoid_focal_loss_backward(Tensor grad, Tensor logits, Tensor targets, float gamma, float alpha) "
      "-> Tensor",
      plain);

  // (N, M, M), (N, 4) -> bool (N, height, width).
  m.def(
      "paste_masks(Tensor masks, Tensor boxes, SymInt height, SymInt width, float threshold, int padding) "
      "-> Tensor",
      plain);

  // (G * G, H, W, n), (n, 4) -> (H, W, n), G = grid_size, and its adjoint.
  m.def("crop_split(Tensor data, Tensor boxes, int grid_size) -> Tensor", plain);
  m.def("crop_split_backward(Tensor grad, Tensor boxes, int grid_size) -> Tensor", plain);

  // (n, G * G * K), (K, H, W), (n, 4) -> (n, H, W), G = grid_size, and the gradients of coefficients and
  // basis.
  m.def("quadrant_masks(Tensor coefficients, Tensor basis, Tensor boxes, int grid_size) -> Tensor", plain);
  m.def(
      "quadrant_masks_backward(Tensor grad, Tensor masks, Tensor coefficients, Tensor basis, Tensor boxes, "
      "int grid_size) -> (Tensor, Tensor)",
      plain);
  // The cross entropy with targets (m, H, W) of those, summed over each box: (n,); and its gradients.
  m.def(
      "quadrant_mask_loss(Tensor coefficients, Tensor basis, Tensor boxes, Tensor targets, "
      "Tensor target_index, int grid_size) -> Tensor",
      plain);
  m.def(
      "quadrant_mask_loss_backward(Tensor grad, Tensor coefficients, Tensor basis, Tensor boxes, "
      "Tensor targets, Tensor target_index, int grid_size) -> (Tensor, Tensor)",
      plain);
  // The masks resized, compared with the threshold and cropped: bool (n, height, width).
  m.def(
      "assemble_masks(Tensor coefficients, Tensor basis, Tensor boxes, int grid_size, SymInt resized_h, "
      "SymInt resized_w, SymInt height, SymInt width, float threshold, float step_y=0, float step_x=0) "
      "-> Tensor",
      plain);

  // Polygons in two levels of offsets, boxes (R, 4) -> bool (R, size, size).
  m.def(
      "rasterize_polygons(Tensor coords, Tensor polygon_offsets, Tensor instance_offsets, "
      "Tensor instance_of_box, Tensor boxes, SymInt image_w, SymInt image_h, SymInt size) -> Tensor",
      plain);

  // Run-length encoded masks, CPU only: one text and a table (N, 4) of begin, length, height, width.
  // Polygons in two levels of offsets, sizes (I, 2) of the images -> text and table.
  m.def(
      "rle_from_polygons(Tensor coords, Tensor polygon_offsets, Tensor instance_offsets, Tensor sizes) "
      "-> (Tensor, Tensor)");
  // Lengths (K,) of the runs offsets[i]:offsets[i + 1] of masks of the sizes (I, 2) -> text and table.
  m.def("rle_from_runs(Tensor runs, Tensor offsets, Tensor sizes) -> (Tensor, Tensor)");
  // Masks (N, width, height), bool, all of this size; an error where a text describes none.
  m.def("rle_decode(Tensor text, Tensor table, int height, int width) -> Tensor");
  // The sum of all runs of each mask (N,), at most 2^62.
  m.def("rle_sums(Tensor text, Tensor table) -> Tensor");

  // Evaluation, CPU only (maskrcnn_benchmark/evaluation). Masks are run-length encoded, or annotation records
  // as JSON: one text, begin and end (N, 2), and height and width of their images (N, 2). The last integers
  // are the first malformed mask (-1: none) of the detections and of the ground truth.
  m.def(
      "box_iou(Tensor det_boxes, Tensor gt_boxes, Tensor gt_crowd, Tensor det_start, Tensor gt_start) "
      "-> Tensor");
  m.def(
      "mask_iou(Tensor det_text, Tensor det_table, Tensor records, Tensor spans, Tensor sizes, Tensor "
      "gt_crowd, "
      "Tensor det_start, Tensor gt_start) -> (Tensor, int, int)");
  // Detections and ground truth by (category, image) pair: det_order, gt_order, the category of every pair,
  // det_start, gt_start.
  m.def(
      "group_pairs(Tensor det_images, Tensor det_categories, Tensor scores, Tensor gt_images, "
      "Tensor gt_categories, int num_images, int num_categories, int max_per_pair) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  // Precision (T, R, K, A, M) and recall (T, K, A, M). layout: det_order, gt_order, det_start, gt_start,
  // pair_start; det_columns: scores, areas, ignore_unmatched; gt_columns: areas, ignore, crowd; protocol:
  // thresholds, area ranges, recall points.
  m.def(
      "box_precision(Tensor det_boxes, Tensor gt_boxes, Tensor[] layout, Tensor[] det_columns, "
      "Tensor[] gt_columns, Tensor[] protocol, int[] max_dets) -> (Tensor, Tensor)");
  m.def(
      "mask_precision(Tensor det_text, Tensor det_table, Tensor records, Tensor spans, Tensor sizes, "
      "Tensor[] layout, Tensor[] det_columns, Tensor[] gt_columns, Tensor[] protocol, int[] max_dets) "
      "-> (Tensor, Tensor, int, int)");
  m.def(
      "match_detections(Tensor ious, Tensor det_start, Tensor gt_start, Tensor det_areas, Tensor det_ignore, "
      "Tensor gt_areas, Tensor gt_ignore, Tensor gt_crowd, Tensor thresholds, Tensor area_ranges) "
      "-> (Tensor, Tensor)");
  m.def(
      "accumulate_precision(Tensor outcome, Tensor gt_ignored, Tensor scores, Tensor det_rank, "
      "Tensor det_start, Tensor gt_start, Tensor recall_points, int[] max_dets) -> (Tensor, Tensor)");
  // Areas (N,), boxes (N, 4), the defect of the text of each (0: none).
  m.def("rle_measure(Tensor text, Tensor table) -> (Tensor, Tensor, Tensor)");
  // Text, table, and whether each record has a mask that can be used (an empty text stands for others).
  m.def("rle_from_records(Tensor records, Tensor spans, Tensor sizes) -> (Tensor, Tensor, Tensor)");
  // Annotation file -> spans (S, 4) of keys and values of its sections; columns of the annotations: ids,
  // image ids, category ids, boxes (N, 4), areas, crowd, ignore, segmentation code, extents (N, 4), visible,
  // unusual (its values are not to be used), begin, end; byte of an error (-1: none), and what is wrong
  // there.
  m.def("scan_annotations(Tensor json) -> (Tensor, Tensor[], int, str)");
  // JSON list of results -> image ids, category ids, scores, boxes (D, 4), which have a box, text and table
  // of the masks, their pixels, mask scores (NaN: none), number of keypoint values (-1: none), all keypoint
  // values; entry and byte of an error (-1: none), and what is wrong there.
  m.def("parse_detections(Tensor json) -> (Tensor[], int, int, str)");

  // Whether this build holds CUDA kernels.
  m.def("has_cuda_kernels() -> bool", [] { return kWithCuda; });
}

#ifndef MRB_WITH_CUDA
namespace {

void without_cuda(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack*) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      false, op.schema().name(),
      ": the native operations were built without CUDA kernels; install a CUDA toolkit that "
      "fits torch, then run FORCE_CUDA=1 pip install --no-build-isolation -e .");
}

}  // namespace

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  for (const char* op : {"nms",
                         "batched_nms",
                         "roi_align",
                         "roi_align_backward",
                         "fpn_levels",
                         "fpn_roi_align",
                         "fpn_roi_align_backward",
                         "roi_pool",
                         "roi_pool_backward",
                         "sigmoid_focal_loss",
                         "sigmoid_focal_loss_sum",
                         "sigmoid_focal_loss_backward",
                         "paste_masks",
                         "rasterize_polygons",
                         "crop_split",
                         "crop_split_backward",
                         "quadrant_masks",
                         "quadrant_masks_backward",
                         "quadrant_mask_loss",
                         "quadrant_mask_loss_backward",
                         "assemble_masks",
                         "deform_conv2d",
                         "deform_conv2d_backward",
                         "deform_psroi_pooling",
                         "deform_psroi_pooling_backward"}) {
    m.impl(op, torch::CppFunction::makeFromBoxedFunction<&without_cuda>());
  }
}
#endif
