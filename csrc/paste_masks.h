// What the CPU and CUDA kernels of paste_masks share: argument checks and which pixels of the image a mask
// covers.
#pragma once

#include <c10/macros/Macros.h>

#include "bilinear.h"
#include "checks.h"

namespace mrb {

constexpr int64_t kMaxMaskSide = 4096;

inline void check_paste_masks(const at::Tensor& masks, const at::Tensor& boxes, int64_t height, int64_t width,
                              double threshold, int64_t padding) {
  const char* op = "paste_masks";
  check_shape(op, "masks", masks, {-1, -1, -1}, "(N, M, M)");
  TORCH_CHECK_VALUE(masks.size(1) == masks.size(2) && masks.size(1) >= 1 && masks.size(1) <= kMaxMaskSide, op,
                    ": masks must have shape (N, M, M) with M from 1 to ", kMaxMaskSide, ", got ",
                    shape_text(masks));
  check_floating(op, "masks", masks);
  check_shape(op, "boxes", boxes, {masks.size(0), 4}, "(N, 4), one box per mask");
  check_floating(op, "boxes", boxes);
  check_device(op, "boxes", boxes, "masks", masks);
  check_range(op, "height", height, 0, INT32_MAX);
  check_range(op, "width", width, 0, INT32_MAX);
  check_fraction(op, "threshold", threshold);
  check_range(op, "padding", padding, 0, kMaxMaskSide);
}

// Columns (or rows) that a resized mask covers: `size` of them from `start`, of which [low, high) are in the
// image.
struct PasteSpan {
  int64_t start;
  int64_t size;
  int64_t low;
  int64_t high;
};

// Toward zero; values beyond +-2^30 are far outside any image and are clamped there.
C10_HOST_DEVICE inline int64_t truncate_pixel(float value) {
  const float bound = 1073741824.0f;
  const float clamped = value < -bound ? -bound : (value > bound ? bound : value);
  return static_cast<int64_t>(clamped);
}

// The box side grows about its centre by (M + 2 padding) / M, measured as x2 - x1 (no +1). parity: as
// published. A side with a NaN gets an empty span.
C10_HOST_DEVICE inline PasteSpan paste_span(float low, float high, float scale, int64_t image) {
  const float half = (high - low) * 0.5f * scale;
  const float centre = (high + low) * 0.5f;
  const float from = centre - half, to = centre + half;
  PasteSpan span{0, 1, 0, 0};
  if (!(from == from) || !(to == to)) return span;
  span.start = truncate_pixel(from);
  const int64_t last = truncate_pixel(to);
  span.size = last - span.start + 1 > 1 ? last - span.start + 1 : 1;
  span.low = span.start > 0 ? span.start : 0;
  span.high = last + 1 < image ? last + 1 : image;
  return span;
}

}  // namespace mrb
