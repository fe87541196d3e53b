// What the CPU and CUDA kernels of roi_pool share: argument checks and the pixels of a bin (Girshick 2015,
// Fast R-CNN, section 2.1).
#pragma once

#include "roi_align.h"

namespace mrb {

inline void check_pool_map(const char* op, int64_t height, int64_t width) {
  check_range(op, "height", height, 1, INT32_MAX);
  check_range(op, "width", width, 1, INT32_MAX);
  TORCH_CHECK_VALUE(height * width <= INT32_MAX, op,
                    ": a map must have less than 2^31 pixels (argmax is int32), got ", height, " x ", width);
}

inline void check_roi_pool(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                           int64_t pooled_h, int64_t pooled_w) {
  const char* op = "roi_pool";
  check_shape(op, "input", input, {-1, -1, -1, -1}, "(B, C, H, W)");
  check_floating(op, "input", input);
  check_pool_map(op, input.size(2), input.size(3));
  check_rois(op, rois, "input", input, spatial_scale, 0);
  check_range(op, "pooled_h", pooled_h, 1, INT32_MAX);
  check_range(op, "pooled_w", pooled_w, 1, INT32_MAX);
}

inline void check_roi_pool_backward(const at::Tensor& grad, const at::Tensor& rois, const at::Tensor& argmax,
                                    int64_t batch, int64_t channels, int64_t height, int64_t width) {
  const char* op = "roi_pool_backward";
  check_range(op, "batch", batch, 0, INT32_MAX);
  check_range(op, "channels", channels, 0, INT32_MAX);
  check_pool_map(op, height, width);
  check_shape(op, "grad", grad, {-1, channels, -1, -1}, "(R, channels, pooled_h, pooled_w)");
  check_floating(op, "grad", grad);
  check_rois(op, rois, "grad", grad, 1.0, 0);
  TORCH_CHECK_VALUE(rois.size(0) == grad.size(0), op, ": rois must have one row per row of grad (",
                    grad.size(0), "), got ", rois.size(0));
  check_shape(op, "argmax", argmax, {grad.size(0), channels, grad.size(2), grad.size(3)},
              "(R, channels, pooled_h, pooled_w) like grad");
  check_dtype(op, "argmax", argmax, at::kInt);
  check_device(op, "argmax", argmax, "grad", grad);
}

// Pixels of one RoI along one axis. Ends are rounded half away from zero; values beyond +-2^30 are far
// outside any map and are clamped there.
template <typename T>
struct PoolAxis {
  int64_t start;
  T bin;

  C10_HOST_DEVICE PoolAxis(T low, T high, T scale, int64_t pooled) {
    start = pixel(low * scale);
    const int64_t size = pixel(high * scale) - start + 1;
    bin = static_cast<T>(size > 1 ? size : 1) / static_cast<T>(pooled);
  }

  // Pixels [first, last) of bin b that are on a map of `size` pixels; none when last <= first.
  C10_HOST_DEVICE void pixels(int64_t b, int64_t size, int64_t* first, int64_t* last) const {
    const int64_t low = static_cast<int64_t>(floor(static_cast<T>(b) * bin)) + start;
    const int64_t high = static_cast<int64_t>(ceil(static_cast<T>(b + 1) * bin)) + start;
    *first = low > 0 ? (low < size ? low : size) : 0;
    *last = high > 0 ? (high < size ? high : size) : 0;
  }

  C10_HOST_DEVICE static int64_t pixel(T position) {
    const T bound = T(1073741824);
    const T clamped = position < -bound ? -bound : (position > bound ? bound : position);
    return static_cast<int64_t>(round(clamped));
  }
};

}  // namespace mrb
