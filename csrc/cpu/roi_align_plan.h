// Which rows and columns of which level every RoI reads, with what weights: the part of RoIAlign on the CPU
// that does not depend on channels.
//
// The average of bilinear samples over a bin factors into one weighted sum over rows and one over columns. So
// each RoI has, per axis, the list of pixels (rows or columns) it reads, and per bin a short list of (index
// in that list, weight), the "taps".
#pragma once

#include <algorithm>
#include <vector>

#include "../roi_align.h"

namespace mrb {

struct AxisPlan {
  int32_t pixels = 0;  // how many different ones
  int32_t taps = 0;    // per bin: 2 or a multiple of 4
  size_t pixel = 0;    // where they begin in Plans::pixels
  size_t tap = 0;      // where its taps begin in Plans::index and Plans::weight
};

struct RoiPlan {
  int64_t roi;    // row of rois
  int64_t image;  // image of the batch
  int32_t level;
  AxisPlan rows, columns;  // no pixels: the RoI is outside

  int64_t area() const { return static_cast<int64_t>(rows.pixels) * columns.pixels; }
};

template <typename T>
struct Plans {
  std::vector<RoiPlan> rois;        // by level and image, then in input order
  std::vector<int64_t> non_finite;  // rows of rois with a NaN or an infinite value
  std::vector<int32_t> pixels;      // ascending per RoI and axis
  std::vector<int32_t> index;
  std::vector<T> weight;
  int64_t max_area = 0;     // max pixels that an RoI reads
  int64_t max_columns = 0;  // max columns
};

// Pixels and weights of every bin of one axis. Weights of samples that share a pixel are summed.
template <typename T>
struct AxisTaps {
  std::vector<int32_t> index;
  std::vector<T> weight;
  std::vector<size_t> begin;
  int32_t max_taps = 0;

  void add(size_t bin_begin, int64_t pixel, T value) {
    for (size_t k = index.size(); k > bin_begin && k + 2 > index.size(); --k) {
      if (index[k - 1] == pixel) {
        weight[k - 1] += value;
        return;
      }
    }
    index.push_back(static_cast<int32_t>(pixel));
    weight.push_back(value);
  }

  void fill(const RoiAxis<T>& axis, int64_t bins, int64_t size, T factor) {
    index.clear();
    weight.clear();
    begin.assign(1, 0);
    max_taps = 0;
    for (int64_t b = 0; b < bins; ++b) {
      int64_t first, last;
      axis.inside(b, size, &first, &last);
      for (int64_t i = first; i < last; ++i) {
        const T position = axis.position(b, i);
        if (!roi_align_reads(position, size)) continue;
        const BilinearTap<T> tap = roi_align_tap(position, size);
        add(begin.back(), tap.low, (T(1) - tap.weight) * factor);
        if (tap.weight != T(0)) add(begin.back(), tap.high, tap.weight * factor);
      }
      max_taps = std::max(max_taps, static_cast<int32_t>(index.size() - begin.back()));
      begin.push_back(index.size());
    }
  }
};

// Appends pixels and taps to the plans. Missing taps repeat a pixel of the same bin (or of the RoI) with
// weight zero.
template <typename T>
AxisPlan append(Plans<T>& plans, const AxisTaps<T>& taps) {
  AxisPlan plan;
  plan.taps = taps.max_taps > 2 ? (taps.max_taps + 3) / 4 * 4 : 2;
  plan.pixel = plans.pixels.size();
  plan.tap = plans.index.size();
  plans.pixels.insert(plans.pixels.end(), taps.index.begin(), taps.index.end());
  const auto pixels = plans.pixels.begin() + static_cast<int64_t>(plan.pixel);
  std::sort(pixels, plans.pixels.end());
  plans.pixels.erase(std::unique(pixels, plans.pixels.end()), plans.pixels.end());
  plan.pixels = static_cast<int32_t>(plans.pixels.size() - plan.pixel);
  for (size_t b = 0; b + 1 < taps.begin.size(); ++b) {
    const size_t count = taps.begin[b + 1] - taps.begin[b];
    for (size_t k = 0; k < static_cast<size_t>(plan.taps); ++k) {
      const size_t from = k < count ? taps.begin[b] + k : (count > 0 ? taps.begin[b + 1] - 1 : 0);
      const auto entry = std::lower_bound(pixels, plans.pixels.end(), taps.index[from]);
      plans.index.push_back(static_cast<int32_t>(entry - pixels));
      plans.weight.push_back(k < count ? taps.weight[from] : T(0));
    }
  }
  return plan;
}

// Raises ValueError for an image index outside the batch. `rois` is contiguous, (R, 5).
template <typename T>
Plans<T> plan_rois(const RoiAlignArgs& args, const at::Tensor& rois, const FeatureShape& shape) {
  Plans<T> plans;
  const T* data = rois.const_data_ptr<T>();
  AxisTaps<T> rows, columns;
  for (int64_t r = 0; r < rois.size(0); ++r) {
    const T* roi = data + 5 * r;
    TORCH_CHECK_VALUE(roi[0] >= T(0) && roi[0] < static_cast<T>(shape.images), args.op, ": rois[", r,
                      ", 0] (image index) must be from 0 to ", shape.images - 1, ", got ", roi[0]);
    const int32_t level = args.rule(static_cast<float>(roi[1]), static_cast<float>(roi[2]),
                                    static_cast<float>(roi[3]), static_cast<float>(roi[4]));
    const T scale = static_cast<T>(args.scales[level]);
    if (!finite_roi(roi, scale)) {
      plans.non_finite.push_back(r);
      continue;
    }
    const RoiAxis<T> x(roi[1], roi[3], scale, args.pooled_w, args.sampling_ratio);
    const RoiAxis<T> y(roi[2], roi[4], scale, args.pooled_h, args.sampling_ratio);
    rows.fill(y, args.pooled_h, shape.heights[level], T(1));
    columns.fill(x, args.pooled_w, shape.widths[level], T(1) / (x.grid * y.grid));
    RoiPlan plan{r, static_cast<int64_t>(roi[0]), level, {}, {}};
    if (!rows.index.empty() && !columns.index.empty()) {
      plan.rows = append(plans, rows);
      plan.columns = append(plans, columns);
      plans.max_area = std::max(plans.max_area, plan.area());
      plans.max_columns = std::max<int64_t>(plans.max_columns, plan.columns.pixels);
    }
    plans.rois.push_back(plan);
  }
  std::stable_sort(plans.rois.begin(), plans.rois.end(), [](const RoiPlan& a, const RoiPlan& b) {
    return a.level != b.level ? a.level < b.level : a.image < b.image;
  });
  return plans;
}

}  // namespace mrb
