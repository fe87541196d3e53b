// What the CPU and CUDA kernels of roi_align share, over one map or the levels of an FPN: argument checks and
// where an RoI is sampled (He et al. 2017, section 3; no half-pixel shift, sides of at least one pixel).
#pragma once

#include <c10/macros/Macros.h>

#include <cmath>
#include <vector>

#include "bilinear.h"
#include "checks.h"
#include "fpn_levels.h"

namespace mrb {

constexpr int64_t kMaxSamplingRatio = 1024;

inline void check_rois(const char* op, const at::Tensor& rois, const char* other_name,
                       const at::Tensor& other, double spatial_scale, int64_t sampling_ratio) {
  check_shape(op, "rois", rois, {-1, 5}, "(R, 5): image index, x1, y1, x2, y2");
  check_floating(op, "rois", rois);
  check_device(op, "rois", rois, other_name, other);
  TORCH_CHECK_VALUE(std::isfinite(spatial_scale) && spatial_scale > 0.0, op,
                    ": spatial_scale must be finite and above 0, got ", spatial_scale);
  check_range(op, "sampling_ratio", sampling_ratio, 0, kMaxSamplingRatio);
}

inline void check_roi_align(const at::Tensor& input, const at::Tensor& rois, double spatial_scale,
                            int64_t pooled_h, int64_t pooled_w, int64_t sampling_ratio) {
  const char* op = "roi_align";
  check_shape(op, "input", input, {-1, -1, -1, -1}, "(B, C, H, W)");
  check_floating(op, "input", input);
  TORCH_CHECK_VALUE(input.size(2) > 0 && input.size(3) > 0, op,
                    ": input must have a height and width of at least 1, got ", shape_text(input));
  check_rois(op, rois, "input", input, spatial_scale, sampling_ratio);
  check_range(op, "pooled_h", pooled_h, 1, INT32_MAX);
  check_range(op, "pooled_w", pooled_w, 1, INT32_MAX);
}

inline void check_roi_align_backward(const at::Tensor& grad, const at::Tensor& rois, double spatial_scale,
                                     int64_t batch, int64_t channels, int64_t height, int64_t width,
                                     int64_t sampling_ratio) {
  const char* op = "roi_align_backward";
  check_range(op, "batch", batch, 0, INT64_MAX);
  check_range(op, "channels", channels, 0, INT64_MAX);
  check_range(op, "height", height, 1, INT32_MAX);
  check_range(op, "width", width, 1, INT32_MAX);
  check_shape(op, "grad", grad, {-1, channels, -1, -1}, "(R, channels, pooled_h, pooled_w)");
  check_floating(op, "grad", grad);
  check_rois(op, rois, "grad", grad, spatial_scale, sampling_ratio);
  TORCH_CHECK_VALUE(rois.size(0) == grad.size(0), op, ": rois must have one row per row of grad (",
                    grad.size(0), "), got ", rois.size(0));
}

// Samples of one RoI along one axis: bin b holds `grid` of them, the i-th at start + b * bin + (i + .5) *
// bin / grid.
template <typename T>
struct RoiAxis {
  T start;
  T bin;
  T grid;

  C10_HOST_DEVICE RoiAxis(T low, T high, T scale, int64_t pooled, int64_t sampling_ratio) {
    start = low * scale;
    const T extent = high * scale - start;
    const T side = extent > T(1) ? extent : T(1);
    bin = side / static_cast<T>(pooled);
    grid = sampling_ratio > 0 ? static_cast<T>(sampling_ratio) : ceil(bin);
  }

  C10_HOST_DEVICE T position(int64_t b, int64_t i) const {
    return start + static_cast<T>(b) * bin + (static_cast<T>(i) + T(.5)) * bin / grid;
  }

  // Samples [first, last) of bin b that can fall on the map: an RoI far larger than the map costs no more
  // than the map. The range is wide by two on each side; `roi_align_reads` drops what is outside.
  C10_HOST_DEVICE void inside(int64_t b, int64_t size, int64_t* first, int64_t* last) const {
    const T origin = start + static_cast<T>(b) * bin;
    const T step = bin / grid;
    const T low = (T(-1) - origin) / step - T(2.5);
    const T high = (static_cast<T>(size) - origin) / step + T(2.5);
    const T limit = grid < T(1 << 30) ? grid : T(1 << 30);
    *first = low > T(0) ? static_cast<int64_t>(low < limit ? low : limit) : 0;
    *last = high < limit ? static_cast<int64_t>(high > T(0) ? high : T(0)) : static_cast<int64_t>(limit);
  }
};

template <typename T>
C10_HOST_DEVICE inline bool finite_roi(const T* roi, T scale) {
  for (int i = 1; i < 5; ++i) {
    const T value = roi[i] * scale;
    if (!(value - value == T(0))) return false;
  }
  // The sides must be finite too.
  const T width = roi[3] * scale - roi[1] * scale;
  const T height = roi[4] * scale - roi[2] * scale;
  return width - width == T(0) && height - height == T(0);
}

// Arguments of one call of roi_align or fpn_roi_align: every RoI is pooled from the level that `rule` assigns
// to it. `op` is the name for messages. A rule with one level needs no box sizes: roi_align.
struct RoiAlignArgs {
  const char* op;
  LevelRule rule;
  std::vector<double> scales;
  int64_t pooled_h, pooled_w, sampling_ratio;
};

inline RoiAlignArgs single_level(const char* op, double spatial_scale, int64_t pooled_h, int64_t pooled_w,
                                 int64_t sampling_ratio) {
  return {op, {0, 1, 0, 1.0f}, {spatial_scale}, pooled_h, pooled_w, sampling_ratio};
}

struct FeatureShape {
  int64_t images, channels;
  std::vector<int64_t> heights, widths;
};

// The kernels of both operations (cpu/roi_align.cpp, cuda/roi_align.cu); arguments are checked already.
// Gradients are in the dtype of `grad`, one per level.
at::Tensor roi_align_cpu(const RoiAlignArgs& args, at::TensorList features, const at::Tensor& rois);
std::vector<at::Tensor> roi_align_backward_cpu(const RoiAlignArgs& args, const at::Tensor& grad,
                                               const at::Tensor& rois, const FeatureShape& shape,
                                               bool channels_last);
at::Tensor roi_align_cuda(const RoiAlignArgs& args, at::TensorList features, const at::Tensor& rois);
std::vector<at::Tensor> roi_align_backward_cuda(const RoiAlignArgs& args, const at::Tensor& grad,
                                                const at::Tensor& rois, const FeatureShape& shape,
                                                bool channels_last);

// The operations: checks, then the kernel of one device.
using ForwardKernel = decltype(roi_align_cpu);
using BackwardKernel = decltype(roi_align_backward_cpu);

template <ForwardKernel* forward>
at::Tensor roi_align(const at::Tensor& input, const at::Tensor& rois, double spatial_scale, int64_t pooled_h,
                     int64_t pooled_w, int64_t sampling_ratio) {
  check_roi_align(input, rois, spatial_scale, pooled_h, pooled_w, sampling_ratio);
  return forward(single_level("roi_align", spatial_scale, pooled_h, pooled_w, sampling_ratio), input, rois);
}

template <BackwardKernel* backward>
at::Tensor roi_align_backward(const at::Tensor& grad, const at::Tensor& rois, double spatial_scale,
                              int64_t batch, int64_t channels, int64_t height, int64_t width,
                              int64_t sampling_ratio) {
  const char* op = "roi_align_backward";
  check_roi_align_backward(grad, rois, spatial_scale, batch, channels, height, width, sampling_ratio);
  return backward(single_level(op, spatial_scale, grad.size(2), grad.size(3), sampling_ratio), grad, rois,
                  {batch, channels, {height}, {width}}, /*channels_last=*/false)[0];
}

}  // namespace mrb
