// RoI max pooling on the CPU. Forward: rows of 16 channels are stored side by side (lanes.h), so that maxima
// and their indices are computed in full vectors in planar and channels-last maps alike. Backward: each plane
// of the gradient belongs to one thread, which makes the sums the same for any number of threads.
#include "../roi_pool.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <limits>
#include <type_traits>
#include <vector>

#include "../multiversion.h"
#include "lanes.h"

namespace mrb {
namespace {

constexpr int64_t kRoiBlock = 256;
constexpr int64_t kPlanePixels = 1 << 16;  // pixels of the gradient that a thread processes at a time, about
constexpr int64_t kWindowPixels = 2048;    // pixels of 16 channels held at a time, when a bin needs no more

struct Span {
  int64_t first = 0, last = 0;

  int64_t size() const { return last > first ? last - first : 0; }
};

// The pixels that the bins of an RoI read; rows and columns hold one span per bin.
struct PoolPlan {
  int64_t roi, image;
  std::vector<Span> rows, columns;
  Span all_rows, all_columns;
};

Span hull(const std::vector<Span>& spans) {
  Span all;
  for (const Span& span : spans) {
    if (span.size() == 0) continue;
    all = all.size() == 0 ? span : Span{std::min(all.first, span.first), std::max(all.last, span.last)};
  }
  return all;
}

// Rows of pixels of 16 channels, from map row `first_row` and column `first_column` on, and a buffer for one
// row of maxima and the map rows that hold them.
template <typename T>
struct Window {
  const T* pixels;
  int64_t first_row, first_column, columns, map_width;
  T* top;
  int32_t* top_row;
};

// Maxima down the given rows, for every column and channel. Of equal values the first one wins, a NaN
// always.
template <typename T>
MRB_INLINE void max_down(const Window<T>& window, Span rows) {
  const int64_t n = window.columns * kLanes;
  const T* MRB_RESTRICT pixel = window.pixels + (rows.first - window.first_row) * n;
  T* MRB_RESTRICT top = window.top;
  int32_t* MRB_RESTRICT top_row = window.top_row;
  for (int64_t j = 0; j < n; ++j) top[j] = pixel[j];
  for (int64_t j = 0; j < n; ++j) top_row[j] = static_cast<int32_t>(rows.first);
  for (int64_t y = rows.first + 1; y < rows.last; ++y) {
    pixel += n;
    const int32_t row = static_cast<int32_t>(y);
    for (int64_t j = 0; j < n; ++j) {
      const bool take = (pixel[j] > top[j]) | (pixel[j] != pixel[j]);
      top[j] = take ? pixel[j] : top[j];
      top_row[j] = take ? row : top_row[j];
    }
  }
}

// Maxima of one row of bins and their indices: (bins, kLanes) each; of equal values the first pixel in
// row-major order. An empty bin gives 0 and -1.
template <typename T>
MRB_INLINE void max_of_bins(const Window<T>& window, Span rows, const Span* columns, int64_t bins,
                            T* MRB_RESTRICT value, int32_t* MRB_RESTRICT where) {
  if (rows.size() > 0 && window.columns > 0) max_down(window, rows);
  const int32_t width = static_cast<int32_t>(window.map_width);
  for (int64_t q = 0; q < bins; ++q, value += kLanes, where += kLanes) {
    if (rows.size() == 0 || columns[q].size() == 0) {
      for (int64_t lane = 0; lane < kLanes; ++lane) value[lane] = T(0);
      for (int64_t lane = 0; lane < kLanes; ++lane) where[lane] = -1;
      continue;
    }
    const int64_t begin = (columns[q].first - window.first_column) * kLanes;
    const T* MRB_RESTRICT top = window.top + begin;
    const int32_t* MRB_RESTRICT row = window.top_row + begin;
    int32_t x = static_cast<int32_t>(columns[q].first);
    for (int64_t lane = 0; lane < kLanes; ++lane) value[lane] = top[lane];
    for (int64_t lane = 0; lane < kLanes; ++lane) where[lane] = row[lane] * width + x;
    for (++x; x < columns[q].last; ++x) {
      top += kLanes;
      row += kLanes;
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const int32_t here = row[lane] * width + x;
        const bool first = (top[lane] == value[lane]) & (here < where[lane]);
        const bool take = (top[lane] > value[lane]) | (top[lane] != top[lane]) | first;
        value[lane] = take ? top[lane] : value[lane];
        where[lane] = take ? here : where[lane];
      }
    }
  }
}

MRB_MULTIVERSION void max_lanes(const Window<float>& window, Span rows, const Span* columns, int64_t bins,
                                float* value, int32_t* where) {
  max_of_bins(window, rows, columns, bins, value, where);
}

MRB_MULTIVERSION void max_lanes(const Window<double>& window, Span rows, const Span* columns, int64_t bins,
                                double* value, int32_t* where) {
  max_of_bins(window, rows, columns, bins, value, where);
}

struct PoolShape {
  int64_t images, channels, height, width, pooled_h, pooled_w;

  int64_t pixels() const { return height * width; }
  int64_t bins() const { return pooled_h * pooled_w; }
};

// Raises ValueError for an image index outside the batch. RoIs with a NaN or an infinite value get no
// columns. `rois` is contiguous, (R, 5).
template <typename T>
std::vector<PoolPlan> plan_pools(const at::Tensor& rois, T scale, const PoolShape& shape) {
  std::vector<PoolPlan> plans(rois.size(0));
  const T* data = rois.const_data_ptr<T>();
  for (int64_t r = 0; r < rois.size(0); ++r) {
    const T* roi = data + 5 * r;
    TORCH_CHECK_VALUE(roi[0] >= T(0) && roi[0] < static_cast<T>(shape.images), "roi_pool: rois[", r,
                      ", 0] (image index) must be from 0 to ", shape.images - 1, ", got ", roi[0]);
    PoolPlan& plan = plans[r];
    plan.roi = r;
    plan.image = static_cast<int64_t>(roi[0]);
    if (!finite_roi(roi, scale)) continue;
    const PoolAxis<T> x(roi[1], roi[3], scale, shape.pooled_w), y(roi[2], roi[4], scale, shape.pooled_h);
    plan.columns.resize(shape.pooled_w);
    plan.rows.resize(shape.pooled_h);
    for (int64_t b = 0; b < shape.pooled_w; ++b)
      x.pixels(b, shape.width, &plan.columns[b].first, &plan.columns[b].last);
    for (int64_t b = 0; b < shape.pooled_h; ++b)
      y.pixels(b, shape.height, &plan.rows[b].first, &plan.rows[b].last);
    plan.all_columns = hull(plan.columns);
    plan.all_rows = hull(plan.rows);
  }
  std::stable_sort(plans.begin(), plans.end(),
                   [](const PoolPlan& a, const PoolPlan& b) { return a.image < b.image; });
  return plans;
}

// Buffers of a thread.
template <typename T>
struct PoolWorkspace {
  std::vector<T> pixels, top, value;
  std::vector<int32_t> top_row, where;

  explicit PoolWorkspace(const PoolShape& shape)
      : top(shape.width * kLanes),
        value(shape.bins() * kLanes),
        top_row(shape.width * kLanes),
        where(shape.bins() * kLanes) {}
};

// One block of channels of one RoI (`indices`: 0, 1, 2, ...), to workspace.value and workspace.where (bins,
// kLanes).
template <typename S, typename T>
void pool_block(const LaneMap<const S>& map, const PoolPlan& plan, const PoolShape& shape,
                const std::vector<int32_t>& indices, PoolWorkspace<T>& workspace) {
  std::vector<T>& pixels = workspace.pixels;
  const Span columns = plan.all_columns;
  const int64_t fit = columns.size() > 0 ? kWindowPixels / columns.size() : 0;
  Span held;
  for (int64_t b = 0; b < shape.pooled_h; ++b) {
    const Span rows = plan.rows[b];
    if (rows.size() > 0 && columns.size() > 0 && (rows.first < held.first || rows.last > held.last)) {
      held = {rows.first, std::min(plan.all_rows.last, std::max(rows.last, rows.first + fit))};
      pixels.resize(std::max<size_t>(pixels.size(), held.size() * columns.size() * kLanes));
      load_window(map, indices.data() + held.first, static_cast<int32_t>(held.size()),
                  indices.data() + columns.first, static_cast<int32_t>(columns.size()), pixels.data());
    }
    const Window<T> window{pixels.data(), held.first,           columns.first,           columns.size(),
                           shape.width,   workspace.top.data(), workspace.top_row.data()};
    const int64_t at = b * shape.pooled_w * kLanes;
    max_lanes(window, rows, plan.columns.data(), shape.pooled_w, workspace.value.data() + at,
              workspace.where.data() + at);
  }
}

template <typename S, typename T>
void pool_all(const at::Tensor& input, const std::vector<PoolPlan>& plans, const PoolShape& shape,
              at::Tensor& output, at::Tensor& argmax) {
  const S* data = input.const_data_ptr<S>();
  S* out = output.mutable_data_ptr<S>();
  int32_t* argmax_data = argmax.mutable_data_ptr<int32_t>();
  std::vector<int32_t> indices(std::max(shape.height, shape.width));
  for (size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<int32_t>(i);
  // RoIs of one image in turn, so that the planes of a block stay in the cache.
  const int64_t count = static_cast<int64_t>(plans.size()), area = shape.bins();
  const int64_t blocks = (shape.channels + kLanes - 1) / kLanes;
  const int64_t roi_tasks = (count + kRoiBlock - 1) / kRoiBlock;
  at::parallel_for(0, roi_tasks * blocks, 1, [&](int64_t first_task, int64_t last_task) {
    PoolWorkspace<T> workspace(shape);
    for (int64_t task = first_task; task < last_task; ++task) {
      const int64_t r = task % roi_tasks * kRoiBlock, c = task / roi_tasks * kLanes;
      const int64_t lanes = std::min(kLanes, shape.channels - c);
      for (int64_t i = r; i < std::min(r + kRoiBlock, count); ++i) {
        const PoolPlan& plan = plans[i];
        const int64_t at = (plan.roi * shape.channels + c) * area;
        if (plan.rows.empty()) {
          std::fill(out + at, out + at + lanes * area, std::numeric_limits<S>::quiet_NaN());
          std::fill(argmax_data + at, argmax_data + at + lanes * area, -1);
          continue;
        }
        const LaneMap<const S> map{data + (plan.image * shape.channels + c) * shape.pixels(),
                                   shape.height,
                                   shape.width,
                                   shape.pixels(),
                                   1,
                                   lanes};
        pool_block(map, plan, shape, indices, workspace);
        from_lanes(workspace.value.data(), area, area, lanes, out + at);
        from_lanes(workspace.where.data(), area, area, lanes, argmax_data + at);
      }
    }
  });
}

std::tuple<at::Tensor, at::Tensor> roi_pool(const at::Tensor& input, const at::Tensor& rois,
                                            double spatial_scale, int64_t pooled_h, int64_t pooled_w) {
  check_roi_pool(input, rois, spatial_scale, pooled_h, pooled_w);
  const PoolShape shape{input.size(0), input.size(1), input.size(2), input.size(3), pooled_h, pooled_w};
  const at::Tensor source = input.contiguous();
  at::Tensor output = at::empty({rois.size(0), shape.channels, pooled_h, pooled_w}, input.options());
  at::Tensor argmax = at::empty(output.sizes(), input.options().dtype(at::kInt));
  if (output.numel() == 0) return {output, argmax};
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, output.scalar_type(), "roi_pool", [&] {
    using T = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    const at::Tensor typed_rois = rois.to(c10::CppTypeToScalarType<T>::value).contiguous();
    const auto plans = plan_pools<T>(typed_rois, static_cast<T>(spatial_scale), shape);
    pool_all<scalar_t, T>(source, plans, shape, output, argmax);
  });
  return {output, argmax};
}

// Rows of rois by image. Raises ValueError for an image index outside the batch.
std::vector<std::vector<int64_t>> rois_by_image(const at::Tensor& rois, int64_t images) {
  const at::Tensor rows = rois.to(at::kDouble).contiguous();
  const double* data = rows.const_data_ptr<double>();
  std::vector<std::vector<int64_t>> rows_of_image(images);
  for (int64_t r = 0; r < rois.size(0); ++r, data += 5) {
    TORCH_CHECK_VALUE(data[0] >= 0.0 && data[0] < static_cast<double>(images), "roi_pool_backward: rois[", r,
                      ", 0] (image index) must be from 0 to ", images - 1, ", got ", data[0]);
    rows_of_image[static_cast<int64_t>(data[0])].push_back(r);
  }
  return rows_of_image;
}

template <typename S, typename T>
void unpool_all(const at::Tensor& grad, const at::Tensor& argmax,
                const std::vector<std::vector<int64_t>>& rois, const PoolShape& shape, at::Tensor& result) {
  const S* from = grad.const_data_ptr<S>();
  const int32_t* indices = argmax.const_data_ptr<int32_t>();
  S* out = result.mutable_data_ptr<S>();
  const int64_t area = shape.bins(), pixels = shape.pixels();
  const int64_t block = std::min(kLanes, std::max<int64_t>(1, kPlanePixels / pixels));
  const int64_t blocks = (shape.channels + block - 1) / block;
  at::parallel_for(0, shape.images * blocks, 1, [&](int64_t first, int64_t last) {
    std::vector<T> sums(std::is_same_v<S, T> ? 0 : block * pixels);
    for (int64_t task = first; task < last; ++task) {
      const int64_t image = task / blocks, channel = task % blocks * block;
      const int64_t planes = std::min(block, shape.channels - channel);
      S* target = out + (image * shape.channels + channel) * pixels;
      T* to = sums.data();
      if constexpr (std::is_same_v<S, T>) to = target;
      std::fill(to, to + planes * pixels, T(0));
      for (int64_t r : rois[image]) {
        int64_t i = (r * shape.channels + channel) * area;
        for (int64_t plane = 0; plane < planes; ++plane) {
          for (const int64_t end = i + area; i < end; ++i) {
            // Also skips the -1 of empty bins.
            const uint32_t pixel = static_cast<uint32_t>(indices[i]);
            if (pixel < pixels) to[plane * pixels + pixel] += static_cast<T>(from[i]);
          }
        }
      }
      if constexpr (!std::is_same_v<S, T>) {
        for (int64_t i = 0; i < planes * pixels; ++i) target[i] = static_cast<S>(sums[i]);
      }
    }
  });
}

at::Tensor roi_pool_backward(const at::Tensor& grad, const at::Tensor& rois, const at::Tensor& argmax,
                             int64_t batch, int64_t channels, int64_t height, int64_t width) {
  check_roi_pool_backward(grad, rois, argmax, batch, channels, height, width);
  const PoolShape shape{batch, channels, height, width, grad.size(2), grad.size(3)};
  const auto by_image = rois_by_image(rois, batch);
  at::Tensor result = at::empty({batch, channels, height, width}, grad.options());
  const at::Tensor from = grad.contiguous(), indices = argmax.contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad.scalar_type(), "roi_pool_backward", [&] {
    using T = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    unpool_all<scalar_t, T>(from, indices, by_image, shape, result);
  });
  return result;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("roi_pool", TORCH_FN(mrb::roi_pool));
  m.impl("roi_pool_backward", TORCH_FN(mrb::roi_pool_backward));
}
