// Greedy assignment of detections to ground truth in each cell, for every area range and IoU threshold.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "cells.h"

namespace mrb {
namespace {

constexpr int64_t kCellsPerTask = 64;
enum Outcome : uint8_t { kWrong = 0, kRight = 1, kIgnored = 2 };

struct Inputs {
  const double *ious, *det_areas, *gt_areas, *ranges, *thresholds;
  const bool *forgiven, *gt_ignore, *gt_crowd;
  int64_t areas, levels, detections, truths;
  double lowest;

  double limit(int64_t level) const { return std::min(thresholds[level], 1.0 - 1e-10); }
  // Both ends belong to the range; written so that NaN counts as inside, as in numpy.
  bool outside(double area, int64_t range) const {
    return area < ranges[2 * range] || area > ranges[2 * range + 1];
  }
};

// The best free candidate of `chosen` for a detection: the last of the highest IoU at or above `limit`, or
// -1.
int64_t best_candidate(const std::vector<int64_t>& chosen, const double* iou, const uint8_t* taken,
                       const bool* crowd, double limit) {
  int64_t best = -1;
  for (const int64_t g : chosen) {
    if ((taken[g] && !crowd[g]) || !(iou[g] >= limit)) continue;
    limit = iou[g];
    best = g;
  }
  return best;
}

// One cell and one area range; `out` and `gt_ignored` are those of the range.
class CellMatcher {
 public:
  void run(const Inputs& in, const CellTable& cells, int64_t cell, int64_t range, uint8_t* out,
           bool* gt_ignored) {
    const int64_t gt_first = cells.gt_start[cell], count = cells.truths_in(cell);
    regular_.clear();
    ignored_.clear();
    for (int64_t g = 0; g < count; ++g) {
      const int64_t at = gt_first + g;
      gt_ignored[at] = in.gt_ignore[at] || in.outside(in.gt_areas[at], range);
      (gt_ignored[at] ? ignored_ : regular_).push_back(g);
    }
    taken_.assign(in.levels * count, 0);
    for (int64_t d = cells.det_start[cell]; d < cells.det_start[cell + 1]; ++d) {
      const double* iou = in.ious + cells.iou_start[cell] + (d - cells.det_start[cell]) * count;
      const bool hopeless = std::none_of(iou, iou + count, [&](double value) { return value >= in.lowest; });
      const bool free = in.forgiven[d] || in.outside(in.det_areas[d], range);
      for (int64_t level = 0; level < in.levels; ++level) {
        uint8_t* taken = taken_.data() + level * count;
        const bool* crowd = in.gt_crowd + gt_first;
        uint8_t outcome = free ? kIgnored : kWrong;
        if (!hopeless) {
          int64_t match = best_candidate(regular_, iou, taken, crowd, in.limit(level));
          const bool right = match >= 0;
          if (!right) match = best_candidate(ignored_, iou, taken, crowd, in.limit(level));
          if (match >= 0) {
            taken[match] = 1;
            outcome = right ? kRight : kIgnored;
          }
        }
        out[level * in.detections + d] = outcome;
      }
    }
  }

 private:
  std::vector<int64_t> regular_, ignored_;
  std::vector<uint8_t> taken_;
};

std::tuple<at::Tensor, at::Tensor> match_cells(const at::Tensor& ious, const at::Tensor& det_start,
                                               const at::Tensor& gt_start, const at::Tensor& det_areas,
                                               const at::Tensor& forgiven, const at::Tensor& gt_areas,
                                               const at::Tensor& gt_ignore, const at::Tensor& gt_crowd,
                                               const at::Tensor& thresholds, const at::Tensor& area_ranges) {
  const char* op = "match_cells";
  check_shape(op, "det_areas", det_areas, {-1}, "(D,)");
  check_shape(op, "gt_areas", gt_areas, {-1}, "(G,)");
  check_shape(op, "thresholds", thresholds, {-1}, "(T,)");
  check_shape(op, "area_ranges", area_ranges, {-1, 2}, "(A, 2)");
  check_dtype(op, "area_ranges", area_ranges, at::kDouble);
  const int64_t detections = det_areas.size(0), truths = gt_areas.size(0);
  const CellTable cells(op, det_start, gt_start, detections, truths);
  const at::Tensor ranges = area_ranges.contiguous();
  Inputs in{check_column<double>(op, "ious", ious, at::kDouble, cells.iou_start[cells.count]),
            check_column<double>(op, "det_areas", det_areas, at::kDouble, detections),
            check_column<double>(op, "gt_areas", gt_areas, at::kDouble, truths),
            ranges.const_data_ptr<double>(),
            check_column<double>(op, "thresholds", thresholds, at::kDouble, thresholds.size(0)),
            check_column<bool>(op, "forgiven", forgiven, at::kBool, detections),
            check_column<bool>(op, "gt_ignore", gt_ignore, at::kBool, truths),
            check_column<bool>(op, "gt_crowd", gt_crowd, at::kBool, truths),
            ranges.size(0),
            thresholds.size(0),
            detections,
            truths,
            1.0};
  for (int64_t level = 0; level < in.levels; ++level) in.lowest = std::min(in.lowest, in.limit(level));
  at::Tensor outcome = at::empty({in.areas, in.levels, detections}, at::TensorOptions().dtype(at::kByte));
  at::Tensor ignored = at::empty({in.areas, truths}, at::TensorOptions().dtype(at::kBool));
  uint8_t* out = outcome.mutable_data_ptr<uint8_t>();
  bool* gt_ignored = ignored.mutable_data_ptr<bool>();
  at::parallel_for(0, cells.count, kCellsPerTask, [&](int64_t first, int64_t last) {
    CellMatcher matcher;
    for (int64_t range = 0; range < in.areas; ++range) {
      for (int64_t cell = first; cell < last; ++cell) {
        matcher.run(in, cells, cell, range, out + range * in.levels * detections,
                    gt_ignored + range * truths);
      }
    }
  });
  return {outcome, ignored};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) { m.impl("match_cells", TORCH_FN(mrb::match_cells)); }
