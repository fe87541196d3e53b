// Offsets of (image, category) pairs, shared by the operations that walk them.
#pragma once

#include <vector>

#include "../checks.h"
#include "matcher.h"

namespace mrb {

inline const int64_t* check_starts(const char* op, const char* name, const at::Tensor& starts,
                                   int64_t total) {
  check_shape(op, name, starts, {-1}, "(C + 1,)");
  check_dtype(op, name, starts, at::kLong);
  TORCH_CHECK_VALUE(starts.is_contiguous() && starts.size(0) > 0, op, ": ", name,
                    " must be contiguous and hold at least one 0");
  const int64_t* value = starts.const_data_ptr<int64_t>();
  const int64_t last = starts.size(0) - 1;
  TORCH_CHECK_VALUE(value[0] == 0 && value[last] == total, op, ": ", name, " must run from 0 to ", total,
                    ", got ", value[0], " to ", value[last]);
  for (int64_t i = 0; i < last; ++i) {
    TORCH_CHECK_VALUE(value[i] <= value[i + 1], op, ": ", name, " must not decrease, got ", value[i],
                      " then ", value[i + 1], " at ", i + 1);
  }
  return value;
}

// Contiguous column of `count` values; the pointer is valid as long as the tensor.
template <typename T>
const T* check_column(const char* op, const char* name, const at::Tensor& column, at::ScalarType type,
                      int64_t count) {
  check_shape(op, name, column, {count}, "(one per row,)");
  check_dtype(op, name, column, type);
  TORCH_CHECK_VALUE(column.is_contiguous(), op, ": ", name, " must be contiguous");
  return column.const_data_ptr<T>();
}

inline at::Tensor check_ranges(const char* op, const at::Tensor& area_ranges) {
  check_shape(op, "area_ranges", area_ranges, {-1, 2}, "(A, 2)");
  check_dtype(op, "area_ranges", area_ranges, at::kDouble);
  return area_ranges.contiguous();
}

// `ranges` has been checked; both tensors must outlive the result.
inline MatchRules check_rules(const char* op, const at::Tensor& thresholds, const at::Tensor& ranges) {
  check_shape(op, "thresholds", thresholds, {-1}, "(T,)");
  const double* values = check_column<double>(op, "thresholds", thresholds, at::kDouble, thresholds.size(0));
  return {ranges.const_data_ptr<double>(), ranges.size(0), values, thresholds.size(0)};
}

// Detections det_start[p]:det_start[p+1] and ground truths gt_start[p]:gt_start[p+1] form pair p.
struct PairTable {
  const int64_t *det_start, *gt_start;
  int64_t count;

  PairTable(const char* op, const at::Tensor& det_starts, const at::Tensor& gt_starts, int64_t detections,
            int64_t truths)
      : det_start(check_starts(op, "det_start", det_starts, detections)),
        gt_start(check_starts(op, "gt_start", gt_starts, truths)),
        count(det_starts.size(0) - 1) {
    TORCH_CHECK_VALUE(gt_starts.size(0) == count + 1, op, ": gt_start must be as long as det_start (",
                      count + 1, "), got ", gt_starts.size(0));
  }
  // Where the IoU matrix (row: detection) of each pair begins, and the number of all values.
  std::vector<int64_t> iou_starts() const {
    std::vector<int64_t> start(count + 1, 0);
    for (int64_t p = 0; p < count; ++p) start[p + 1] = start[p] + detections_in(p) * truths_in(p);
    return start;
  }
  int64_t detections_in(int64_t pair) const { return det_start[pair + 1] - det_start[pair]; }
  int64_t truths_in(int64_t pair) const { return gt_start[pair + 1] - gt_start[pair]; }
};

}  // namespace mrb
