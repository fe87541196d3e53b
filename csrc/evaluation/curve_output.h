// The arrays of precision and recall, with checked arguments.
#pragma once

#include <ATen/ops/full.h>

#include <cmath>

#include "curves.h"
#include "pairs.h"

namespace mrb {

inline void check_scores(const char* op, const double* scores, int64_t count) {
  for (int64_t d = 0; d < count; ++d) {
    TORCH_CHECK_VALUE(!std::isnan(scores[d]), op, ": score ", d, " is NaN");
  }
}

// Both tensors hold -1 until a category is written.
struct CurveOutput {
  CurveOutput(const char* op, const at::Tensor& recall_points, int64_t num_thresholds, int64_t categories,
              int64_t areas, at::IntArrayRef max_dets) {
    check_shape(op, "recall_points", recall_points, {-1}, "(R,)");
    const int64_t points = recall_points.size(0), slots = max_dets.size();
    const double* point = check_column<double>(op, "recall_points", recall_points, at::kDouble, points);
    TORCH_CHECK_VALUE(std::is_sorted(point, point + points), op, ": recall_points must not decrease");
    const auto options = at::TensorOptions().dtype(at::kDouble);
    precision = at::full({num_thresholds, points, categories, areas, slots}, -1.0, options);
    recall = at::full({num_thresholds, categories, areas, slots}, -1.0, options);
    arrays = {precision.mutable_data_ptr<double>(),
              recall.mutable_data_ptr<double>(),
              point,
              num_thresholds,
              points,
              categories,
              areas,
              max_dets.vec()};
  }

  at::Tensor precision, recall;
  CurveArrays arrays;
};

}  // namespace mrb
