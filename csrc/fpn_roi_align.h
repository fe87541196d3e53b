// What the CPU and CUDA sides of fpn_roi_align share: argument checks, then the kernels of roi_align.
#pragma once

#include <ATen/core/List.h>
#include <c10/util/ArrayRef.h>

#include <string>
#include <vector>

#include "roi_align.h"

namespace mrb {

// Scales are 2^-l, 2^-(l + 1), ...; `what` names what there is one of per scale.
inline void check_scales(const char* op, at::ArrayRef<double> scales, size_t levels, const char* what) {
  TORCH_CHECK_VALUE(scales.size() == levels, op, ": scales must hold one value per ", what, " (", levels,
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

// FPN level of the features with this scale.
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
  TORCH_CHECK_VALUE(heights.size() == widths.size(), op, ": widths must hold one value per height (",
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

template <ForwardKernel* forward>
at::Tensor fpn_roi_align(at::TensorList features, const at::Tensor& rois, at::ArrayRef<double> scales,
                         int64_t pooled_h, int64_t pooled_w, int64_t sampling_ratio, int64_t canonical_level,
                         double canonical_size) {
  const char* op = "fpn_roi_align";
  check_fpn_roi_align(features, rois, scales, pooled_h, pooled_w, sampling_ratio);
  const auto levels = static_cast<int64_t>(features.size());
  const LevelRule rule =
      make_level_rule(op, level_of_scale(scales[0]), levels, canonical_level, canonical_size);
  return forward({op, rule, scales.vec(), pooled_h, pooled_w, sampling_ratio}, features, rois);
}

template <BackwardKernel* backward>
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
  return backward({op, rule, scales.vec(), grad.size(2), grad.size(3), sampling_ratio}, grad, rois,
                  {batch, grad.size(1), heights.vec(), widths.vec()}, channels_last);
}

}  // namespace mrb
