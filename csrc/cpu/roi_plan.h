// Which cells of which map every region reads, with what weights: the part of ROIAlign on the CPU that does
// not depend on channels.
//
// The average of bilinear samples over a bin factors into one weighted sum over rows and one over columns. So
// each region gets, per axis, the list of cells it reads, and per bin a short list of (position in that list,
// weight), the "taps".
#pragma once

#include <algorithm>
#include <vector>

#include "../fpn_roi_align.h"

namespace mrb {

struct AxisPlan {
  int32_t cells = 0;  // how many different cells
  int32_t taps = 0;   // per bin: 2 or a multiple of 4
  size_t cell = 0;    // where its cells begin in Plans::cells
  size_t tap = 0;     // where its taps begin in Plans::index and Plans::weight
};

struct RoiPlan {
  int64_t roi;    // row of rois
  int64_t image;  // row of the map
  int32_t level;
  AxisPlan rows, columns;  // no cells: the region lies outside

  int64_t area() const { return static_cast<int64_t>(rows.cells) * columns.cells; }
};

template <typename T>
struct Plans {
  std::vector<RoiPlan> rois;        // by level and image, then in the order of the input
  std::vector<int64_t> non_finite;  // rows of rois with a NaN or an infinite number
  std::vector<int32_t> cells;       // ascending per region and axis
  std::vector<int32_t> index;
  std::vector<T> weight;
  int64_t largest = 0;  // most cells that a region reads
  int64_t widest = 0;   // most columns
};

// Cells and weights of every bin of one axis. Weights of samples that share a cell are summed.
template <typename T>
struct AxisTaps {
  std::vector<int32_t> index;
  std::vector<T> weight;
  std::vector<size_t> begin;
  int32_t most = 0;

  void add(size_t bin_begin, int64_t cell, T value) {
    for (size_t k = index.size(); k > bin_begin && k + 2 > index.size(); --k) {
      if (index[k - 1] == cell) {
        weight[k - 1] += value;
        return;
      }
    }
    index.push_back(static_cast<int32_t>(cell));
    weight.push_back(value);
  }

  void fill(const RoiAxis<T>& axis, int64_t bins, int64_t size, T factor) {
    index.clear();
    weight.clear();
    begin.assign(1, 0);
    most = 0;
    for (int64_t b = 0; b < bins; ++b) {
      int64_t first, last;
      axis.inside(b, size, &first, &last);
      for (int64_t i = first; i < last; ++i) {
        const Tap<T> tap(axis.position(b, i), size);
        if (!tap.inside) continue;
        add(begin.back(), tap.low, (T(1) - tap.share) * factor);
        if (tap.share != T(0)) add(begin.back(), tap.high, tap.share * factor);
      }
      most = std::max(most, static_cast<int32_t>(index.size() - begin.back()));
      begin.push_back(index.size());
    }
  }
};

// Appends cells and taps to the plans. Missing taps repeat a cell of the same bin (or of the region) with
// weight zero.
template <typename T>
AxisPlan append(Plans<T>& plans, const AxisTaps<T>& taps) {
  AxisPlan plan;
  plan.taps = taps.most > 2 ? (taps.most + 3) / 4 * 4 : 2;
  plan.cell = plans.cells.size();
  plan.tap = plans.index.size();
  plans.cells.insert(plans.cells.end(), taps.index.begin(), taps.index.end());
  const auto cells = plans.cells.begin() + static_cast<int64_t>(plan.cell);
  std::sort(cells, plans.cells.end());
  plans.cells.erase(std::unique(cells, plans.cells.end()), plans.cells.end());
  plan.cells = static_cast<int32_t>(plans.cells.size() - plan.cell);
  for (size_t b = 0; b + 1 < taps.begin.size(); ++b) {
    const size_t count = taps.begin[b + 1] - taps.begin[b];
    for (size_t k = 0; k < static_cast<size_t>(plan.taps); ++k) {
      const size_t from = k < count ? taps.begin[b] + k : (count > 0 ? taps.begin[b + 1] - 1 : 0);
      const auto position = std::lower_bound(cells, plans.cells.end(), taps.index[from]);
      plans.index.push_back(static_cast<int32_t>(position - cells));
      plans.weight.push_back(k < count ? taps.weight[from] : T(0));
    }
  }
  return plan;
}

// Raises ValueError for an image index outside the batch. `rois` is contiguous, (R, 5).
template <typename T>
Plans<T> plan_rois(const RoiPooling& pooling, const at::Tensor& rois, const MapShape& shape) {
  Plans<T> plans;
  const T* data = rois.const_data_ptr<T>();
  AxisTaps<T> rows, columns;
  for (int64_t r = 0; r < rois.size(0); ++r) {
    const T* roi = data + 5 * r;
    TORCH_CHECK_VALUE(roi[0] >= T(0) && roi[0] < static_cast<T>(shape.images), pooling.op, ": rois[", r,
                      ", 0] (image index) must be from 0 to ", shape.images - 1, ", got ", roi[0]);
    const int32_t level = pooling.rule(static_cast<float>(roi[1]), static_cast<float>(roi[2]),
                                       static_cast<float>(roi[3]), static_cast<float>(roi[4]));
    const T scale = static_cast<T>(pooling.scales[level]);
    if (!finite_roi(roi, scale)) {
      plans.non_finite.push_back(r);
      continue;
    }
    const RoiAxis<T> x(roi[1], roi[3], scale, pooling.pooled_w, pooling.sampling_ratio);
    const RoiAxis<T> y(roi[2], roi[4], scale, pooling.pooled_h, pooling.sampling_ratio);
    rows.fill(y, pooling.pooled_h, shape.heights[level], T(1));
    columns.fill(x, pooling.pooled_w, shape.widths[level], T(1) / (x.grid * y.grid));
    RoiPlan plan{r, static_cast<int64_t>(roi[0]), level, {}, {}};
    if (!rows.index.empty() && !columns.index.empty()) {
      plan.rows = append(plans, rows);
      plan.columns = append(plans, columns);
      plans.largest = std::max(plans.largest, plan.area());
      plans.widest = std::max<int64_t>(plans.widest, plan.columns.cells);
    }
    plans.rois.push_back(plan);
  }
  std::stable_sort(plans.rois.begin(), plans.rois.end(), [](const RoiPlan& a, const RoiPlan& b) {
    return a.level != b.level ? a.level < b.level : a.image < b.image;
  });
  return plans;
}

}  // namespace mrb
