// What the CPU and CUDA kernels of paste_masks share: argument checks and where a mask lands in the image.
#pragma once

#include <c10/macros/Macros.h>

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

// Toward zero; numbers beyond +-2^30 are far outside any image and are clamped there.
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

// Bilinear resize without aligned corners: the two source cells of target cell i and the share of the second.
struct ResizeTap {
  int64_t low;
  int64_t high;
  float share;

  C10_HOST_DEVICE ResizeTap(int64_t i, int64_t source, int64_t target)
      : ResizeTap(i, source, static_cast<float>(source) / static_cast<float>(target)) {}

  // `ratio` source cells per target cell.
  C10_HOST_DEVICE ResizeTap(int64_t i, int64_t source, float ratio) {
    const float at = ratio * (static_cast<float>(i) + 0.5f) - 0.5f;
    const float clamped = at > 0.0f ? at : 0.0f;
    low = static_cast<int64_t>(clamped);
    if (low > source - 1) low = source - 1;
    high = low + 1 < source ? low + 1 : low;
    const float rest = clamped - static_cast<float>(low);
    share = rest < 1.0f ? rest : 1.0f;
  }
};

}  // namespace mrb
