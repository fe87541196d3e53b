// RoIAlign on the CPU, forward and backward, over one map or the levels of an FPN.
//
// RoIs are planned once for all channels (roi_align_plan.h). Then each block of 16 channels of an RoI is
// stored side by side (lanes.h), so that the sums run in full vectors in planar and in channels-last features
// alike, and with the same bits. In the backward pass each (level, image, block) belongs to one thread, which
// makes the sums the same for any number of threads.
#include "../roi_align.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <limits>
#include <vector>

#include "../memory_format.h"
#include "../multiversion.h"
#include "lanes.h"
#include "roi_align_plan.h"

namespace mrb {
namespace {

constexpr int64_t kRoiBlock = 256;
constexpr int64_t kFewRois = 8;

// out[j] = sum over taps of weight * pixels[index][j], for n values per pixel.
template <typename T>
MRB_INLINE void combine(int32_t taps, const int32_t* index, const T* weight, const T* pixels, int64_t n,
                        T* MRB_RESTRICT out) {
  if (taps == 2) {
    const T *a = pixels + index[0] * n, *b = pixels + index[1] * n;
    const T wa = weight[0], wb = weight[1];
    for (int64_t j = 0; j < n; ++j) out[j] = wa * a[j] + wb * b[j];
    return;
  }
  for (int32_t k = 0; k < taps; k += 4) {
    const T *a = pixels + index[k] * n, *b = pixels + index[k + 1] * n;
    const T *c = pixels + index[k + 2] * n, *d = pixels + index[k + 3] * n;
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

// window (rows.pixels, columns.pixels, kLanes) -> out (bins.height, bins.width, kLanes).
template <typename T>
MRB_INLINE void pool(const Plans<T>& plans, const RoiPlan& plan, Bins bins, const T* window, T* row, T* out) {
  const AxisPlan &y = plan.rows, &x = plan.columns;
  for (int64_t b = 0; b < bins.height; ++b) {
    const size_t tap = y.tap + b * y.taps;
    combine(y.taps, plans.index.data() + tap, plans.weight.data() + tap, window, x.pixels * kLanes, row);
    for (int64_t q = 0; q < bins.width; ++q, out += kLanes) {
      const size_t column = x.tap + q * x.taps;
      combine(x.taps, plans.index.data() + column, plans.weight.data() + column, row, kLanes, out);
    }
  }
}

// The adjoint of `pool`: grad (bins.height, bins.width, kLanes) is added to map (H, W, kLanes).
template <typename T>
MRB_INLINE void scatter(const Plans<T>& plans, const RoiPlan& plan, Bins bins, const T* grad, int64_t width,
                        T* MRB_RESTRICT row, T* map) {
  const AxisPlan &y = plan.rows, &x = plan.columns;
  const int32_t* columns = plans.pixels.data() + x.pixel;
  const bool contiguous = columns[x.pixels - 1] - columns[0] + 1 == x.pixels;
  for (int64_t b = 0; b < bins.height; ++b) {
    for (int64_t j = 0; j < x.pixels * kLanes; ++j) row[j] = T(0);
    for (int64_t q = 0; q < bins.width; ++q, grad += kLanes) {
      for (size_t k = x.tap + q * x.taps; k < x.tap + (q + 1) * x.taps; ++k) {
        const T w = plans.weight[k];
        T* out = row + plans.index[k] * kLanes;
        for (int64_t lane = 0; lane < kLanes; ++lane) out[lane] += w * grad[lane];
      }
    }
    for (size_t k = y.tap + b * y.taps; k < y.tap + (b + 1) * y.taps; ++k) {
      const T w = plans.weight[k];
      if (w == T(0)) continue;
      T* line = map + plans.pixels[y.pixel + plans.index[k]] * width * kLanes;
      if (contiguous) {
        T* MRB_RESTRICT to = line + columns[0] * kLanes;
        for (int64_t j = 0; j < x.pixels * kLanes; ++j) to[j] += w * row[j];
        continue;
      }
      for (int32_t i = 0; i < x.pixels; ++i) {
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

MRB_MULTIVERSION void scatter_lanes(const Plans<float>& plans, const RoiPlan& plan, Bins bins,
                                    const float* grad, int64_t width, float* row, float* map) {
  scatter(plans, plan, bins, grad, width, row, map);
}

MRB_MULTIVERSION void scatter_lanes(const Plans<double>& plans, const RoiPlan& plan, Bins bins,
                                    const double* grad, int64_t width, double* row, double* map) {
  scatter(plans, plan, bins, grad, width, row, map);
}

// Channels [c, c + kLanes) of one image of features (images, channels, height, width).
template <typename S>
LaneMap<S> lanes_of(S* data, const FeatureShape& shape, size_t level, bool channels_last, int64_t image,
                    int64_t c) {
  const int64_t height = shape.heights[level], width = shape.widths[level], pixels = height * width;
  const int64_t lanes = std::min(kLanes, shape.channels - c);
  S* start = data + image * shape.channels * pixels;
  if (channels_last) return {start + c, height, width, 1, shape.channels, lanes};
  return {start + c * pixels, height, width, pixels, 1, lanes};
}

template <typename S, typename T>
void pool_all(const RoiAlignArgs& args, const std::vector<at::Tensor>& maps, const FeatureShape& shape,
              const at::Tensor& rois, at::Tensor& output) {
  const Plans<T> plans = plan_rois<T>(args, rois, shape);
  const Bins bins{args.pooled_h, args.pooled_w};
  const int64_t area = bins.height * bins.width, roi_size = shape.channels * area;
  S* out = output.mutable_data_ptr<S>();
  for (int64_t r : plans.non_finite) {
    std::fill(out + r * roi_size, out + (r + 1) * roi_size,
              static_cast<S>(std::numeric_limits<T>::quiet_NaN()));
  }
  std::vector<const S*> data;
  std::vector<bool> last;
  for (const at::Tensor& map : maps) {
    data.push_back(map.const_data_ptr<S>());
    last.push_back(is_channels_last(map));
  }
  // Planes stay in the cache while many RoIs read them; an RoI of channels-last features is read whole.
  const int64_t count = static_cast<int64_t>(plans.rois.size());
  const int64_t blocks = (shape.channels + kLanes - 1) / kLanes;
  const int64_t rois_per_task = last[0] ? kFewRois : kRoiBlock;
  const int64_t blocks_per_task = last[0] ? blocks : 1;
  const int64_t roi_tasks = (count + rois_per_task - 1) / rois_per_task;
  at::parallel_for(0, roi_tasks * (blocks / blocks_per_task), 1, [&](int64_t first_task, int64_t last_task) {
    std::vector<T> window(plans.max_area * kLanes), row(plans.max_columns * kLanes), pooled(area * kLanes);
    for (int64_t task = first_task; task < last_task; ++task) {
      const int64_t r = task % roi_tasks * rois_per_task, block = task / roi_tasks * blocks_per_task;
      for (int64_t i = r; i < std::min(r + rois_per_task, count); ++i) {
        const RoiPlan& plan = plans.rois[i];
        for (int64_t c = block * kLanes; c < std::min((block + blocks_per_task) * kLanes, shape.channels);
             c += kLanes) {
          S* to = out + plan.roi * roi_size + c * area;
          const auto map = lanes_of(data[plan.level], shape, plan.level, last[plan.level], plan.image, c);
          if (plan.area() == 0) {
            std::fill(to, to + map.lanes * area, S(0));
            continue;
          }
          load_window(map, plans.pixels.data() + plan.rows.pixel, plan.rows.pixels,
                      plans.pixels.data() + plan.columns.pixel, plan.columns.pixels, window.data());
          pool_lanes(plans, plan, bins, window.data(), row.data(), pooled.data());
          from_lanes(pooled.data(), area, area, map.lanes, to);
        }
      }
    }
  });
}

// The RoIs [begin, end) of the plans that read one image of one level, and the rows they read.
struct Group {
  size_t begin = 0, end = 0;
  int64_t first_row = 0, last_row = 0;
};

template <typename T>
std::vector<Group> group_plans(const Plans<T>& plans, const FeatureShape& shape) {
  std::vector<Group> groups(shape.heights.size() * shape.images);
  for (size_t i = 0; i < plans.rois.size(); ++i) {
    const RoiPlan& plan = plans.rois[i];
    Group& group = groups[plan.level * shape.images + plan.image];
    if (group.end == 0) group = {i, i, shape.heights[plan.level], 0};
    group.end = i + 1;
    if (plan.area() == 0) continue;
    const int32_t* rows = plans.pixels.data() + plan.rows.pixel;
    group.first_row = std::min<int64_t>(group.first_row, rows[0]);
    group.last_row = std::max<int64_t>(group.last_row, rows[plan.rows.pixels - 1] + 1);
  }
  for (Group& group : groups) group.first_row = std::min(group.first_row, group.last_row);
  return groups;
}

template <typename S, typename T>
void scatter_all(const RoiAlignArgs& args, const at::Tensor& grad, const at::Tensor& rois,
                 const FeatureShape& shape, bool channels_last, std::vector<at::Tensor>& grads) {
  const Plans<T> plans = plan_rois<T>(args, rois, shape);
  const std::vector<Group> groups = group_plans(plans, shape);
  const Bins bins{args.pooled_h, args.pooled_w};
  const int64_t area = bins.height * bins.width;
  const S* from = grad.const_data_ptr<S>();
  std::vector<S*> data;
  for (at::Tensor& map : grads) data.push_back(map.mutable_data_ptr<S>());
  const int64_t count = static_cast<int64_t>(groups.size());
  const int64_t blocks = (shape.channels + kLanes - 1) / kLanes;
  at::parallel_for(0, blocks * count, 1, [&](int64_t first_task, int64_t last_task) {
    std::vector<T> row(plans.max_columns * kLanes), pooled(area * kLanes), sums;
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
        scatter_lanes(plans, plan, bins, pooled.data(), map.width, row.data(), sums.data());
      }
      store_rows(sums.data(), group.first_row, group.last_row, map);
    }
  });
}

}  // namespace

at::Tensor roi_align_cpu(const RoiAlignArgs& args, at::TensorList features, const at::Tensor& rois) {
  FeatureShape shape{features[0].size(0), features[0].size(1), {}, {}};
  std::vector<at::Tensor> maps;
  for (const at::Tensor& map : features) {
    shape.heights.push_back(map.size(2));
    shape.widths.push_back(map.size(3));
    maps.push_back(is_channels_last(map) ? map : map.contiguous());
  }
  at::Tensor output =
      at::empty({rois.size(0), shape.channels, args.pooled_h, args.pooled_w}, features[0].options());
  if (output.numel() == 0) return output;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, output.scalar_type(), "roi_align", [&] {
    using T = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    const at::Tensor typed_rois = rois.to(c10::CppTypeToScalarType<T>::value).contiguous();
    pool_all<scalar_t, T>(args, maps, shape, typed_rois, output);
  });
  return output;
}

std::vector<at::Tensor> roi_align_backward_cpu(const RoiAlignArgs& args, const at::Tensor& grad,
                                               const at::Tensor& rois, const FeatureShape& shape,
                                               bool channels_last) {
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
    const at::Tensor typed_rois = rois.to(c10::CppTypeToScalarType<T>::value).contiguous();
    scatter_all<scalar_t, T>(args, from, typed_rois, shape, channels_last, grads);
  });
  return grads;
}

}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("roi_align", TORCH_FN(mrb::roi_align<mrb::roi_align_cpu>));
  m.impl("roi_align_backward", TORCH_FN(mrb::roi_align_backward<mrb::roi_align_backward_cpu>));
}
