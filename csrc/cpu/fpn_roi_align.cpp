// ROIAlign on the CPU, forward and backward, over one map or the levels of a pyramid.
//
// Regions are planned once for all channels (roi_plan.h). Then each block of 16 channels of a region is laid
// side by side (lanes.h), so that the sums run in full vectors in planar and in channels-last maps alike, and
// with the same bits. In the backward pass each (map, image, block) belongs to one thread, which makes the
// sums the same for any number of threads.
#include "../fpn_roi_align.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <limits>
#include <vector>

#include "../multiversion.h"
#include "lanes.h"
#include "roi_plan.h"

namespace mrb {
namespace {

constexpr int64_t kRoiBlock = 256;
constexpr int64_t kFewRois = 8;

// out[j] = sum over taps of weight * cells[index][j], for n numbers per cell.
template <typename T>
MRB_INLINE void combine(int32_t taps, const int32_t* index, const T* weight, const T* cells, int64_t n,
                        T* MRB_RESTRICT out) {
  if (taps == 2) {
    const T *a = cells + index[0] * n, *b = cells + index[1] * n;
    const T wa = weight[0], wb = weight[1];
    for (int64_t j = 0; j < n; ++j) out[j] = wa * a[j] + wb * b[j];
    return;
  }
  for (int32_t k = 0; k < taps; k += 4) {
    const T *a = cells + index[k] * n, *b = cells + index[k + 1] * n;
    const T *c = cells + index[k + 2] * n, *d = cells + index[k + 3] * n;
    const T wa = weight[k], wb = weight[k + 1], wc = weight[k + 2], wd = weight[k + 3];
    if (k == 0) {
      for (int64_t j = 0; j < n; ++j) out[j] = wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j];
    } else {
      for (int64_t j = 0; j < n; ++j) out[j] += wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j];
    }
  }
}

struct Bins {
  int64_t height, width;
};

// window (rows.cells, columns.cells, kLanes) -> out (bins.height, bins.width, kLanes).
template <typename T>
MRB_INLINE void pool(const Plans<T>& plans, const RoiPlan& plan, Bins bins, const T* window, T* row, T* out) {
  const AxisPlan &y = plan.rows, &x = plan.columns;
  for (int64_t b = 0; b < bins.height; ++b) {
    const size_t tap = y.tap + b * y.taps;
    combine(y.taps, plans.index.data() + tap, plans.weight.data() + tap, window, x.cells * kLanes, row);
    for (int64_t q = 0; q < bins.width; ++q, out += kLanes) {
      const size_t column = x.tap + q * x.taps;
      combine(x.taps, plans.index.data() + column, plans.weight.data() + column, row, kLanes, out);
    }
  }
}

// The adjoint of `pool`: grad (bins.height, bins.width, kLanes) is added to map (H, W, kLanes).
template <typename T>
MRB_INLINE void spread(const Plans<T>& plans, const RoiPlan& plan, Bins bins, const T* grad, int64_t width,
                       T* MRB_RESTRICT row, T* map) {
  const AxisPlan &y = plan.rows, &x = plan.columns;
  const int32_t* columns = plans.cells.data() + x.cell;
  const bool run = columns[x.cells - 1] - columns[0] + 1 == x.cells;
  for (int64_t b = 0; b < bins.height; ++b) {
    for (int64_t j = 0; j < x.cells * kLanes; ++j) row[j] = T(0);
    for (int64_t q = 0; q < bins.width; ++q, grad += kLanes) {
      for (size_t k = x.tap + q * x.taps; k < x.tap + (q + 1) * x.taps; ++k) {
        const T w = plans.weight[k];
        T* to = row + plans.index[k] * kLanes;
        for (int64_t lane = 0; lane < kLanes; ++lane) to[lane] += w * grad[lane];
      }
    }
    for (size_t k = y.tap + b * y.taps; k < y.tap + (b + 1) * y.taps; ++k) {
      const T w = plans.weight[k];
      if (w == T(0)) continue;
      T* line = map + plans.cells[y.cell + plans.index[k]] * width * kLanes;
      if (run) {
        T* MRB_RESTRICT to = line + columns[0] * kLanes;
        for (int64_t j = 0; j < x.cells * kLanes; ++j) to[j] += w * row[j];
        continue;
      }
      for (int32_t i = 0; i < x.cells; ++i) {
        T* MRB_RESTRICT to = line + columns[i] * kLanes;
        const T* from = row + i * kLanes;
        for (int64_t lane = 0; lane < kLanes; ++lane) to[lane] += w * from[lane];
      }
    }
  }
}

MRB_MULTIVERSION void pool_lanes(const Plans<float>& plans, const RoiPlan& plan, Bins bins,
                                 const float* window, float* row, float* out) {
  pool(plans, plan, bins, window, row, out);
}

MRB_MULTIVERSION void pool_lanes(const Plans<double>& plans, const RoiPlan& plan, Bins bins,
                                 const double* window, double* row, double* out) {
  pool(plans, plan, bins, window, row, out);
}

MRB_MULTIVERSION void spread_lanes(const Plans<float>& plans, const RoiPlan& plan, Bins bins,
                                   const float* grad, int64_t width, float* row, float* map) {
  spread(plans, plan, bins, grad, width, row, map);
}

MRB_MULTIVERSION void spread_lanes(const Plans<double>& plans, const RoiPlan& plan, Bins bins,
                                   const double* grad, int64_t width, double* row, double* map) {
  spread(plans, plan, bins, grad, width, row, map);
}

// Channels [c, c + kLanes) of one image of a map of shape (images, channels, height, width).
template <typename S>
LaneMap<S> lanes_of(S* data, const MapShape& shape, size_t level, bool channels_last, int64_t image,
                    int64_t c) {
  const int64_t height = shape.heights[level], width = shape.widths[level], cells = height * width;
  const int64_t lanes = std::min(kLanes, shape.channels - c);
  S* start = data + image * shape.channels * cells;
  if (channels_last) return {start + c, height, width, 1, shape.channels, lanes};
  return {start + c * cells, height, width, cells, 1, lanes};
}

template <typename S, typename T>
void pool_all(const RoiPooling& pooling, const std::vector<at::Tensor>& maps, const MapShape& shape,
              const at::Tensor& rois, at::Tensor& output) {
  const Plans<T> plans = plan_rois<T>(pooling, rois, shape);
  const Bins bins{pooling.pooled_h, pooling.pooled_w};
  const int64_t area = bins.height * bins.width, region = shape.channels * area;
  S* out = output.mutable_data_ptr<S>();
  for (int64_t r : plans.non_finite) {
    std::fill(out + r * region, out + (r + 1) * region, static_cast<S>(std::numeric_limits<T>::quiet_NaN()));
  }
  std::vector<const S*> data;
  std::vector<bool> last;
  for (const at::Tensor& map : maps) {
    data.push_back(map.const_data_ptr<S>());
    last.push_back(is_channels_last(map));
  }
  // Planes stay in the cache while many regions read them; a region of a channels-last map is read whole.
  const int64_t count = static_cast<int64_t>(plans.rois.size());
  const int64_t blocks = (shape.channels + kLanes - 1) / kLanes;
  const int64_t rois_per_task = last[0] ? kFewRois : kRoiBlock;
  const int64_t blocks_per_task = last[0] ? blocks : 1;
  const int64_t roi_tasks = (count + rois_per_task - 1) / rois_per_task;
  at::parallel_for(0, roi_tasks * (blocks / blocks_per_task), 1, [&](int64_t first_task, int64_t last_task) {
    std::vector<T> window(plans.largest * kLanes), row(plans.widest * kLanes), pooled(area * kLanes);
    for (int64_t task = first_task; task < last_task; ++task) {
      const int64_t r = task % roi_tasks * rois_per_task, block = task / roi_tasks * blocks_per_task;
      for (int64_t i = r; i < std::min(r + rois_per_task, count); ++i) {
        const RoiPlan& plan = plans.rois[i];
        for (int64_t c = block * kLanes; c < std::min((block + blocks_per_task) * kLanes, shape.channels);
             c += kLanes) {
          S* to = out + plan.roi * region + c * area;
          const auto map = lanes_of(data[plan.level], shape, plan.level, last[plan.level], plan.image, c);
          if (plan.area() == 0) {
            std::fill(to, to + map.lanes * area, S(0));
            continue;
          }
          load_window(map, plans.cells.data() + plan.rows.cell, plan.rows.cells,
                      plans.cells.data() + plan.columns.cell, plan.columns.cells, window.data());
          pool_lanes(plans, plan, bins, window.data(), row.data(), pooled.data());
          from_lanes(pooled.data(), area, area, map.lanes, to);
        }
      }
    }
  });
}

// The regions [begin, end) of the plans that read one image of one level, and the rows they read.
struct Group {
  size_t begin = 0, end = 0;
  int64_t first_row = 0, last_row = 0;
};

template <typename T>
std::vector<Group> group_plans(const Plans<T>& plans, const MapShape& shape) {
  std::vector<Group> groups(shape.heights.size() * shape.images);
  for (size_t i = 0; i < plans.rois.size(); ++i) {
    const RoiPlan& plan = plans.rois[i];
    Group& group = groups[plan.level * shape.images + plan.image];
    if (group.end == 0) group = {i, i, shape.heights[plan.level], 0};
    group.end = i + 1;
    if (plan.area() == 0) continue;
    const int32_t* rows = plans.cells.data() + plan.rows.cell;
    group.first_row = std::min<int64_t>(group.first_row, rows[0]);
    group.last_row = std::max<int64_t>(group.last_row, rows[plan.rows.cells - 1] + 1);
  }
  for (Group& group : groups) group.first_row = std::min(group.first_row, group.last_row);
  return groups;
}

template <typename S, typename T>
void spread_all(const RoiPooling& pooling, const at::Tensor& grad, const at::Tensor& rois,
                const MapShape& shape, bool channels_last, std::vector<at::Tensor>& grads) {
  const Plans<T> plans = plan_rois<T>(pooling, rois, shape);
  const std::vector<Group> groups = group_plans(plans, shape);
  const Bins bins{pooling.pooled_h, pooling.pooled_w};
  const int64_t area = bins.height * bins.width;
  const S* from = grad.const_data_ptr<S>();
  std::vector<S*> data;
  for (at::Tensor& map : grads) data.push_back(map.mutable_data_ptr<S>());
  const int64_t count = static_cast<int64_t>(groups.size());
  const int64_t blocks = (shape.channels + kLanes - 1) / kLanes;
  at::parallel_for(0, blocks * count, 1, [&](int64_t first_task, int64_t last_task) {
    std::vector<T> row(plans.widest * kLanes), pooled(area * kLanes), sums;
    for (int64_t task = first_task; task < last_task; ++task) {
      const int64_t c = task / count * kLanes, level = task % count / shape.images;
      const Group& group = groups[task % count];
      const auto map = lanes_of(data[level], shape, level, channels_last, task % count % shape.images, c);
      sums.resize(std::max<size_t>(sums.size(), map.height * map.width * kLanes));
      std::fill(sums.begin() + group.first_row * map.width * kLanes,
                sums.begin() + group.last_row * map.width * kLanes, T(0));
      for (size_t i = group.begin; i < group.end; ++i) {
        const RoiPlan& plan = plans.rois[i];
        if (plan.area() == 0) continue;
        to_lanes(from + (plan.roi * shape.channels + c) * area, area, area, map.lanes, pooled.data());
        spread_lanes(plans, plan, bins, pooled.data(), map.width, row.data(), sums.data());
      }
      store_rows(sums.data(), group.first_row, group.last_row, map);
    }
  });
}

}  // namespace

at::Tensor pool_cpu(const RoiPooling& pooling, at::TensorList features, const at::Tensor& rois) {
  MapShape shape{features[0].size(0), features[0].size(1), {}, {}};
  std::vector<at::Tensor> maps;
  for (const at::Tensor& map : features) {
    shape.heights.push_back(map.size(2));
    shape.widths.push_back(map.size(3));
    maps.push_back(is_channels_last(map) ? map : map.contiguous());
  }
  at::Tensor output =
      at::empty({rois.size(0), shape.channels, pooling.pooled_h, pooling.pooled_w}, features[0].options());
  if (output.numel() == 0) return output;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, output.scalar_type(), "roi_align", [&] {
    using T = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    const at::Tensor regions = rois.to(c10::CppTypeToScalarType<T>::value).contiguous();
    pool_all<scalar_t, T>(pooling, maps, shape, regions, output);
  });
  return output;
}

std::vector<at::Tensor> spread_cpu(const RoiPooling& pooling, const at::Tensor& grad, const at::Tensor& rois,
                                   const MapShape& shape, bool channels_last) {
  const auto format = channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  std::vector<at::Tensor> grads;
  for (size_t i = 0; i < shape.heights.size(); ++i) {
    grads.push_back(
        at::empty({shape.images, shape.channels, shape.heights[i], shape.widths[i]}, grad.options(), format));
  }
  if (grad.numel() == 0) {
    for (at::Tensor& map : grads) map.zero_();
    return grads;
  }
  const at::Tensor from = grad.contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad.scalar_type(), "roi_align_backward", [&] {
    using T = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    const at::Tensor regions = rois.to(c10::CppTypeToScalarType<T>::value).contiguous();
    spread_all<scalar_t, T>(pooling, from, regions, shape, channels_last, grads);
  });
  return grads;
}

namespace {

at::Tensor fpn_levels(const at::Tensor& boxes, int64_t first_level, int64_t levels, int64_t canonical_level,
                      double canonical_size) {
  check_fpn_levels(boxes);
  const LevelRule rule = make_level_rule("fpn_levels", first_level, levels, canonical_level, canonical_size);
  const at::Tensor rows = boxes.to(at::kFloat).contiguous();
  at::Tensor result = at::empty({boxes.size(0)}, boxes.options().dtype(at::kInt));
  const float* box = rows.const_data_ptr<float>();
  int32_t* out = result.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i < boxes.size(0); ++i, box += 4) out[i] = rule(box[0], box[1], box[2], box[3]);
  return result;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("fpn_levels", TORCH_FN(mrb::fpn_levels));
  m.impl("fpn_roi_align", TORCH_FN(mrb::fpn_roi_align<mrb::pool_cpu>));
  m.impl("fpn_roi_align_backward", TORCH_FN(mrb::fpn_roi_align_backward<mrb::spread_cpu>));
}
