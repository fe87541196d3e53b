// What the CPU and CUDA kernels of nms share: argument checks and the IoU of two boxes.
#pragma once

#include <c10/macros/Macros.h>

#include "checks.h"
#include "multiversion.h"

namespace mrb {

inline void check_nms(const char* op, const at::Tensor& boxes, const at::Tensor& scores,
                      double iou_threshold) {
  check_shape(op, "boxes", boxes, {-1, 4}, "(N, 4)");
  check_floating(op, "boxes", boxes);
  check_shape(op, "scores", scores, {boxes.size(0)}, "(N,), one score per box");
  check_floating(op, "scores", scores);
  check_device(op, "scores", scores, "boxes", boxes);
  check_fraction(op, "iou_threshold", iou_threshold);
}

inline void check_labels(const char* op, const at::Tensor& boxes, const at::Tensor& labels) {
  check_shape(op, "labels", labels, {boxes.size(0)}, "(N,), one class per box");
  TORCH_CHECK_TYPE(at::isIntegralType(labels.scalar_type(), false), op, ": labels must be integers, got ",
                   labels.scalar_type());
  check_device(op, "labels", labels, "boxes", boxes);
}

C10_HOST_DEVICE MRB_INLINE float intersection_side(float low_a, float high_a, float low_b, float high_b) {
  const float side = (high_a < high_b ? high_a : high_b) - (low_a > low_b ? low_a : low_b) + 1.0f;
  return side > 0.0f ? side : 0.0f;
}

// Inclusive pixel convention: a box from x1 to x2 is x2 - x1 + 1 wide.
C10_HOST_DEVICE MRB_INLINE float box_area(float x1, float y1, float x2, float y2) {
  return (x2 - x1 + 1.0f) * (y2 - y1 + 1.0f);
}

// Whether the IoU is above the threshold. A box with a NaN has a NaN area, so that the comparison is false:
// it neither drops another box nor is dropped.
C10_HOST_DEVICE MRB_INLINE bool iou_above(float intersection, float area_a, float area_b, float threshold) {
  return intersection / (area_a + area_b - intersection) > threshold;
}

}  // namespace mrb
