// What the CPU and CUDA kernels of fpn_roi_align share: argument checks and the level of a box.
#pragma once

#include <ATen/core/List.h>
#include <c10/util/ArrayRef.h>

#include <string>
#include <vector>

#include "roi_align.h"

namespace mrb {

constexpr int64_t kMaxLevels = 16;
constexpr int64_t kMaxLevelNumber = 64;

// Pyramid level of a box (Lin et al. 2017, equation 1), computed in float32 on every device, counted from the
// first level of the pyramid. The area has the inclusive +1 convention. A box whose area is negative or NaN
// goes to the first level.
struct LevelRule {
  int32_t first, count, canonical_level;
  float canonical_size;

  C10_HOST_DEVICE int32_t operator()(float x1, float y1, float x2, float y2) const {
    const float area = (x2 - x1 + 1.0f) * (y2 - y1 + 1.0f);
    const float relative = sqrtf(area) / canonical_size + 1e-6f;
    // The rounded double logarithm is the same number on every machine, which a float32 logarithm is not.
    const float log = static_cast<float>(log2(static_cast<double>(relative)));
    const float level = floorf(static_cast<float>(canonical_level) + log) - static_cast<float>(first);
    if (!(level > 0.0f)) return 0;
    const float last = static_cast<float>(count - 1);
    return static_cast<int32_t>(level < last ? level : last);
  }
};

inline LevelRule make_level_rule(const char* op, int64_t first_level, int64_t levels, int64_t canonical_level,
                                 double canonical_size) {
  check_range(op, "first_level", first_level, -kMaxLevelNumber, kMaxLevelNumber);
  check_range(op, "canonical_level", canonical_level, -kMaxLevelNumber, kMaxLevelNumber);
  check_range(op, "the number of levels", levels, 1, kMaxLevels);
  const float size = static_cast<float>(canonical_size);
  TORCH_CHECK_VALUE(std::isfinite(size) && size > 0.0f, op,
                    ": canonical_size must be finite and above 0, got ", canonical_size);
  return {static_cast<int32_t>(first_level), static_cast<int32_t>(levels),
          static_cast<int32_t>(canonical_level), size};
}

inline void check_fpn_levels(const at::Tensor& boxes) {
  check_shape("fpn_levels", "boxes", boxes, {-1, 4}, "(N, 4)");
  check_floating("fpn_levels", "boxes", boxes);
}

// Scales are 2^-l, 2^-(l + 1), ...; `what` names the things of which there is one per scale.
inline void check_scales(const char* op, at::ArrayRef<double> scales, size_t levels, const char* what) {
  TORCH_CHECK_VALUE(scales.size() == levels, op, ": scales must hold one number per ", what, " (", levels,
                    "), got ", scales.size());
  for (size_t i = 0; i < levels; ++i) {
    int exponent = 0;
    const bool power = scales[i] > 0.0 && std::isfinite(scales[i]) && std::frexp(scales[i], &exponent) == 0.5;
    TORCH_CHECK_VALUE(power && std::abs(exponent) < kMaxLevelNumber, op, ": scales[", i,
                      "] must be a power of two such as 0.25, got ", scales[i]);
    TORCH_CHECK_VALUE(i == 0 || scales[i] * 2.0 == scales[i - 1], op, ": scales must halve, scales[", i,
                      "] is ", scales[i], " after ", scales[i - 1]);
  }
}

// Level of the map with this scale.
inline int64_t level_of_scale(double scale) { return std::lround(-std::log2(scale)); }

inline void check_fpn_roi_align(at::TensorList features, const at::Tensor& rois, at::ArrayRef<double> scales,
                                int64_t pooled_h, int64_t pooled_w, int64_t sampling_ratio) {
  const char* op = "fpn_roi_align";
  check_range(op, "the number of features", static_cast<int64_t>(features.size()), 1, kMaxLevels);
  check_scales(op, scales, features.size(), "level");
  for (size_t i = 0; i < features.size(); ++i) {
    const std::string name = "features[" + std::to_string(i) + "]";
    check_shape(op, name.c_str(), features[i], {-1, -1, -1, -1}, "(B, C, H, W)");
    check_floating(op, name.c_str(), features[i]);
    check_device(op, name.c_str(), features[i], "features[0]", features[0]);
    check_dtype(op, name.c_str(), features[i], features[0].scalar_type());
    check_shape(op, name.c_str(), features[i], {features[0].size(0), features[0].size(1), -1, -1},
                "(B, C, H, W) with the B and C of features[0]");
    TORCH_CHECK_VALUE(features[i].size(2) > 0 && features[i].size(3) > 0, op, ": ", name,
                      " must have a height and width of at least 1, got ", shape_text(features[i]));
    check_rois(op, rois, "features", features[0], scales[i], sampling_ratio);
  }
  check_range(op, "pooled_h", pooled_h, 1, INT32_MAX);
  check_range(op, "pooled_w", pooled_w, 1, INT32_MAX);
}

inline void check_fpn_roi_align_backward(const at::Tensor& grad, const at::Tensor& rois,
                                         at::ArrayRef<double> scales, int64_t batch, at::IntArrayRef heights,
                                         at::IntArrayRef widths, int64_t sampling_ratio) {
  const char* op = "fpn_roi_align_backward";
  check_range(op, "the number of levels", static_cast<int64_t>(heights.size()), 1, kMaxLevels);
  TORCH_CHECK_VALUE(heights.size() == widths.size(), op, ": widths must hold one number per height (",
                    heights.size(), "), got ", widths.size());
  check_scales(op, scales, heights.size(), "height");
  check_range(op, "batch", batch, 0, INT32_MAX);
  check_shape(op, "grad", grad, {-1, -1, -1, -1}, "(R, C, pooled_h, pooled_w)");
  check_floating(op, "grad", grad);
  for (size_t i = 0; i < heights.size(); ++i) {
    check_range(op, "heights", heights[i], 1, INT32_MAX);
    check_range(op, "widths", widths[i], 1, INT32_MAX);
    check_rois(op, rois, "grad", grad, scales[i], sampling_ratio);
  }
  TORCH_CHECK_VALUE(rois.size(0) == grad.size(0), op, ": rois must have one row per row of grad (",
                    grad.size(0), "), got ", rois.size(0));
}

// What both ROIAlign operations do, on one device: pool every region from the level that `rule` gives it.
// `op` is the name for messages. A rule with one level needs no box sizes: roi_align.
struct RoiPooling {
  const char* op;
  LevelRule rule;
  std::vector<double> scales;
  int64_t pooled_h, pooled_w, sampling_ratio;
};

inline RoiPooling single_level(const char* op, double spatial_scale, int64_t pooled_h, int64_t pooled_w,
                               int64_t sampling_ratio) {
  return {op, {0, 1, 0, 1.0f}, {spatial_scale}, pooled_h, pooled_w, sampling_ratio};
}

struct MapShape {
  int64_t images, channels;
  std::vector<int64_t> heights, widths;
};

// Arguments are checked already. Gradients come in the dtype of `grad`, one per level.
at::Tensor pool_cpu(const RoiPooling& pooling, at::TensorList features, const at::Tensor& rois);
std::vector<at::Tensor> spread_cpu(const RoiPooling& pooling, const at::Tensor& grad, const at::Tensor& rois,
                                   const MapShape& shape, bool channels_last);
at::Tensor pool_cuda(const RoiPooling& pooling, at::TensorList features, const at::Tensor& rois);
std::vector<at::Tensor> spread_cuda(const RoiPooling& pooling, const at::Tensor& grad, const at::Tensor& rois,
                                    const MapShape& shape, bool channels_last);

// A map that is stored pixel by pixel, and not also plane by plane.
inline bool is_channels_last(const at::Tensor& map) {
  return map.is_contiguous(at::MemoryFormat::ChannelsLast) && !map.is_contiguous();
}

// The operations themselves: checks, then the kernels of one device.
using Pool = decltype(pool_cpu);
using Spread = decltype(spread_cpu);

template <Pool* pool>
at::Tensor roi_align(const at::Tensor& input, const at::Tensor& rois, double spatial_scale, int64_t pooled_h,
                     int64_t pooled_w, int64_t sampling_ratio) {
  check_roi_align(input, rois, spatial_scale, pooled_h, pooled_w, sampling_ratio);
  return pool(single_level("roi_align", spatial_scale, pooled_h, pooled_w, sampling_ratio), input, rois);
}

template <Spread* spread>
at::Tensor roi_align_backward(const at::Tensor& grad, const at::Tensor& rois, double spatial_scale,
                              int64_t batch, int64_t channels, int64_t height, int64_t width,
                              int64_t sampling_ratio) {
  const char* op = "roi_align_backward";
  check_roi_align_backward(grad, rois, spatial_scale, batch, channels, height, width, sampling_ratio);
  return spread(single_level(op, spatial_scale, grad.size(2), grad.size(3), sampling_ratio), grad, rois,
                {batch, channels, {height}, {width}}, /*channels_last=*/false)[0];
}

template <Pool* pool>
at::Tensor fpn_roi_align(at::TensorList features, const at::Tensor& rois, at::ArrayRef<double> scales,
                         int64_t pooled_h, int64_t pooled_w, int64_t sampling_ratio, int64_t canonical_level,
                         double canonical_size) {
  const char* op = "fpn_roi_align";
  check_fpn_roi_align(features, rois, scales, pooled_h, pooled_w, sampling_ratio);
  const auto levels = static_cast<int64_t>(features.size());
  const LevelRule rule =
      make_level_rule(op, level_of_scale(scales[0]), levels, canonical_level, canonical_size);
  return pool({op, rule, scales.vec(), pooled_h, pooled_w, sampling_ratio}, features, rois);
}

template <Spread* spread>
std::vector<at::Tensor> fpn_roi_align_backward(const at::Tensor& grad, const at::Tensor& rois,
                                               at::ArrayRef<double> scales, int64_t batch,
                                               at::IntArrayRef heights, at::IntArrayRef widths,
                                               int64_t sampling_ratio, int64_t canonical_level,
                                               double canonical_size, bool channels_last) {
  const char* op = "fpn_roi_align_backward";
  check_fpn_roi_align_backward(grad, rois, scales, batch, heights, widths, sampling_ratio);
  const auto levels = static_cast<int64_t>(heights.size());
  const LevelRule rule =
      make_level_rule(op, level_of_scale(scales[0]), levels, canonical_level, canonical_size);
  return spread({op, rule, scales.vec(), grad.size(2), grad.size(3), sampling_ratio}, grad, rois,
                {batch, grad.size(1), heights.vec(), widths.vec()}, channels_last);
}

}  // namespace mrb
