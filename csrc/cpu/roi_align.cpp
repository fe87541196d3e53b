// ROIAlign on the CPU, forward and backward.
//
// The average of bilinear samples over a bin factors into one weighted sum over rows and one over columns. So
// each region gets, per axis and bin, a short list of cells and weights ("taps"); the row sums then run along
// contiguous memory. Loops go over feature planes outside and regions inside: a plane stays in cache while
// all regions read it, and in the backward pass each plane belongs to one thread, which makes the sums the
// same for any number of threads.
#include "../roi_align.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "../multiversion.h"

namespace mrb {
namespace {

constexpr int64_t kChannelBlock = 8;
constexpr int64_t kRoiBlock = 256;

template <typename T>
struct RoiPlan {
  int64_t roi;                                    // row of rois
  int64_t image;                                  // row of input
  int32_t row_taps, column_taps;                  // per bin
  int32_t column, width;                          // columns that are read
  std::vector<int32_t>::size_type rows, columns;  // where its taps begin
};

template <typename T>
struct Plans {
  std::vector<RoiPlan<T>> rois;     // finite regions, in the order of the input
  std::vector<int64_t> non_finite;  // rows of rois with a NaN or an infinite number
  std::vector<int32_t> index;
  std::vector<T> weight;
  int64_t widest = 0;
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

int32_t round_up(int32_t value, int32_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Appends the taps to the plan, `most` per bin: bin by bin for rows, tap by tap for columns. Missing taps
// repeat a cell of the same bin (or of the region) with weight zero.
template <typename T>
void append(Plans<T>& plans, const AxisTaps<T>& taps, int64_t bins, int32_t most, int32_t shift,
            bool by_bin) {
  const size_t offset = plans.index.size();
  plans.index.resize(offset + bins * most);
  plans.weight.resize(offset + bins * most);
  for (int64_t b = 0; b < bins; ++b) {
    const size_t count = taps.begin[b + 1] - taps.begin[b];
    for (int32_t k = 0; k < most; ++k) {
      const bool used = static_cast<size_t>(k) < count;
      const size_t from = used ? taps.begin[b] + k : (count > 0 ? taps.begin[b + 1] - 1 : 0);
      const size_t to = offset + (by_bin ? b * most + k : k * bins + b);
      plans.index[to] = taps.index[from] - shift;
      plans.weight[to] = used ? taps.weight[from] : T(0);
    }
  }
}

template <typename T>
Plans<T> plan_rois(const char* op, const at::Tensor& rois, double spatial_scale, int64_t images,
                   int64_t height, int64_t width, int64_t pooled_h, int64_t pooled_w,
                   int64_t sampling_ratio) {
  Plans<T> plans;
  const T scale = static_cast<T>(spatial_scale);
  const T* data = rois.const_data_ptr<T>();
  AxisTaps<T> rows, columns;
  for (int64_t r = 0; r < rois.size(0); ++r) {
    const T* roi = data + 5 * r;
    TORCH_CHECK_VALUE(roi[0] >= T(0) && roi[0] < static_cast<T>(images), op, ": rois[", r,
                      ", 0] (image index) must be from 0 to ", images - 1, ", got ", roi[0]);
    if (!finite_roi(roi, scale)) {
      plans.non_finite.push_back(r);
      continue;
    }
    const RoiAxis<T> x(roi[1], roi[3], scale, pooled_w, sampling_ratio);
    const RoiAxis<T> y(roi[2], roi[4], scale, pooled_h, sampling_ratio);
    rows.fill(y, pooled_h, height, T(1));
    columns.fill(x, pooled_w, width, T(1) / (x.grid * y.grid));
    RoiPlan<T> plan{r, static_cast<int64_t>(roi[0]), 0, 0, 0, 0, 0, 0};
    if (!rows.index.empty() && !columns.index.empty()) {
      const auto [low, high] = std::minmax_element(columns.index.begin(), columns.index.end());
      plan.row_taps = round_up(rows.most, rows.most > 2 ? 4 : 2);
      plan.column_taps = columns.most;
      plan.column = *low;
      plan.width = *high - *low + 1;
      plan.rows = plans.index.size();
      append(plans, rows, pooled_h, plan.row_taps, 0, true);
      plan.columns = plans.index.size();
      append(plans, columns, pooled_w, plan.column_taps, plan.column, false);
      plans.widest = std::max<int64_t>(plans.widest, plan.width);
    }
    plans.rois.push_back(plan);
  }
  return plans;
}

// One region on one plane: out (pooled_h, pooled_w).
template <typename T>
MRB_INLINE void pool(const Plans<T>& plans, const RoiPlan<T>& plan, const T* plane, int64_t stride,
                     int64_t pooled_h, int64_t pooled_w, T* MRB_RESTRICT row, T* MRB_RESTRICT out) {
  const int64_t width = plan.width;
  const int32_t* MRB_RESTRICT xi = plans.index.data() + plan.columns;
  const T* MRB_RESTRICT xw = plans.weight.data() + plan.columns;
  const T* MRB_RESTRICT base = plane + plan.column;
  for (int64_t b = 0; b < pooled_h; ++b, out += pooled_w) {
    const int32_t* yi = plans.index.data() + plan.rows + b * plan.row_taps;
    const T* yw = plans.weight.data() + plan.rows + b * plan.row_taps;
    int32_t k = 0;
    if (plan.row_taps == 2) {
      const T *r0 = base + yi[0] * stride, *r1 = base + yi[1] * stride;
      const T w0 = yw[0], w1 = yw[1];
      for (int64_t i = 0; i < width; ++i) row[i] = w0 * r0[i] + w1 * r1[i];
      k = 2;
    }
    for (; k < plan.row_taps; k += 4) {
      const T *r0 = base + yi[k] * stride, *r1 = base + yi[k + 1] * stride;
      const T *r2 = base + yi[k + 2] * stride, *r3 = base + yi[k + 3] * stride;
      const T w0 = yw[k], w1 = yw[k + 1], w2 = yw[k + 2], w3 = yw[k + 3];
      if (k == 0) {
        for (int64_t i = 0; i < width; ++i) row[i] = w0 * r0[i] + w1 * r1[i] + w2 * r2[i] + w3 * r3[i];
      } else {
        for (int64_t i = 0; i < width; ++i) row[i] += w0 * r0[i] + w1 * r1[i] + w2 * r2[i] + w3 * r3[i];
      }
    }
    for (int64_t q = 0; q < pooled_w; ++q) {
      T sum = T(0);
      for (int32_t t = 0; t < plan.column_taps; ++t) sum += xw[t * pooled_w + q] * row[xi[t * pooled_w + q]];
      out[q] = sum;
    }
  }
}

// The adjoint of `pool`: adds the gradient of one region to the gradient of one plane.
template <typename T>
MRB_INLINE void spread(const Plans<T>& plans, const RoiPlan<T>& plan, const T* grad, int64_t stride,
                       int64_t pooled_h, int64_t pooled_w, T* MRB_RESTRICT row, T* plane) {
  const int64_t width = plan.width;
  const int32_t* MRB_RESTRICT xi = plans.index.data() + plan.columns;
  const T* MRB_RESTRICT xw = plans.weight.data() + plan.columns;
  for (int64_t b = 0; b < pooled_h; ++b, grad += pooled_w) {
    for (int64_t i = 0; i < width; ++i) row[i] = T(0);
    for (int32_t t = 0; t < plan.column_taps; ++t) {
      for (int64_t q = 0; q < pooled_w; ++q) row[xi[t * pooled_w + q]] += xw[t * pooled_w + q] * grad[q];
    }
    const int32_t* yi = plans.index.data() + plan.rows + b * plan.row_taps;
    const T* yw = plans.weight.data() + plan.rows + b * plan.row_taps;
    for (int32_t k = 0; k < plan.row_taps; ++k) {
      const T w = yw[k];
      if (w == T(0)) continue;
      T* MRB_RESTRICT target = plane + yi[k] * stride + plan.column;
      for (int64_t i = 0; i < width; ++i) target[i] += w * row[i];
    }
  }
}

struct Shape {
  int64_t images, channels, height, width, pooled_h, pooled_w;
};

template <typename T>
MRB_INLINE void pool_block(const Plans<T>& plans, const Shape& s, int64_t roi_begin, int64_t roi_end,
                           int64_t c, const T* input, T* row, T* output) {
  for (int64_t r = roi_begin; r < roi_end; ++r) {
    const RoiPlan<T>& plan = plans.rois[r];
    T* out = output + (plan.roi * s.channels + c) * s.pooled_h * s.pooled_w;
    if (plan.width == 0) {
      std::fill(out, out + s.pooled_h * s.pooled_w, T(0));
      continue;
    }
    const T* plane = input + (plan.image * s.channels + c) * s.height * s.width;
    pool(plans, plan, plane, s.width, s.pooled_h, s.pooled_w, row, out);
  }
}

template <typename T>
MRB_INLINE void spread_plane(const Plans<T>& plans, const Shape& s, int64_t image, int64_t c, const T* grad,
                             T* row, T* grad_input) {
  T* plane = grad_input + (image * s.channels + c) * s.height * s.width;
  for (const RoiPlan<T>& plan : plans.rois) {
    if (plan.image != image || plan.width == 0) continue;
    const T* from = grad + (plan.roi * s.channels + c) * s.pooled_h * s.pooled_w;
    spread(plans, plan, from, s.width, s.pooled_h, s.pooled_w, row, plane);
  }
}

MRB_MULTIVERSION void pool_task(const Plans<float>& plans, const Shape& s, int64_t roi_begin, int64_t roi_end,
                                int64_t c, const float* input, float* row, float* output) {
  pool_block(plans, s, roi_begin, roi_end, c, input, row, output);
}

MRB_MULTIVERSION void pool_task(const Plans<double>& plans, const Shape& s, int64_t roi_begin,
                                int64_t roi_end, int64_t c, const double* input, double* row,
                                double* output) {
  pool_block(plans, s, roi_begin, roi_end, c, input, row, output);
}

MRB_MULTIVERSION void spread_task(const Plans<float>& plans, const Shape& s, int64_t image, int64_t c,
                                  const float* grad, float* row, float* grad_input) {
  spread_plane(plans, s, image, c, grad, row, grad_input);
}

MRB_MULTIVERSION void spread_task(const Plans<double>& plans, const Shape& s, int64_t image, int64_t c,
                                  const double* grad, double* row, double* grad_input) {
  spread_plane(plans, s, image, c, grad, row, grad_input);
}

template <typename T>
void forward(const at::Tensor& input, const at::Tensor& rois, double spatial_scale, const Shape& s,
             int64_t sampling_ratio, at::Tensor& output) {
  const Plans<T> plans = plan_rois<T>("roi_align", rois, spatial_scale, s.images, s.height, s.width,
                                      s.pooled_h, s.pooled_w, sampling_ratio);
  const T* in = input.const_data_ptr<T>();
  T* out = output.mutable_data_ptr<T>();
  const int64_t region = s.channels * s.pooled_h * s.pooled_w;
  for (int64_t r : plans.non_finite) {
    std::fill(out + r * region, out + (r + 1) * region, std::numeric_limits<T>::quiet_NaN());
  }
  const int64_t count = static_cast<int64_t>(plans.rois.size());
  const int64_t roi_blocks = (count + kRoiBlock - 1) / kRoiBlock;
  const int64_t channel_blocks = (s.channels + kChannelBlock - 1) / kChannelBlock;
  at::parallel_for(0, channel_blocks * roi_blocks, 1, [&](int64_t first, int64_t last) {
    std::vector<T> row(plans.widest);
    for (int64_t task = first; task < last; ++task) {
      const int64_t r = task % roi_blocks * kRoiBlock;
      const int64_t c = task / roi_blocks * kChannelBlock;
      for (int64_t k = c; k < std::min(c + kChannelBlock, s.channels); ++k) {
        pool_task(plans, s, r, std::min(r + kRoiBlock, count), k, in, row.data(), out);
      }
    }
  });
}

template <typename T>
void backward(const at::Tensor& grad, const at::Tensor& rois, double spatial_scale, const Shape& s,
              int64_t sampling_ratio, at::Tensor& grad_input) {
  const Plans<T> plans = plan_rois<T>("roi_align_backward", rois, spatial_scale, s.images, s.height, s.width,
                                      s.pooled_h, s.pooled_w, sampling_ratio);
  const T* from = grad.const_data_ptr<T>();
  T* to = grad_input.mutable_data_ptr<T>();
  at::parallel_for(0, s.images * s.channels, 1, [&](int64_t first, int64_t last) {
    std::vector<T> row(plans.widest);
    for (int64_t plane = first; plane < last; ++plane) {
      spread_task(plans, s, plane / s.channels, plane % s.channels, from, row.data(), to);
    }
  });
}

at::Tensor roi_align(const at::Tensor& input, const at::Tensor& rois, double spatial_scale, int64_t pooled_h,
                     int64_t pooled_w, int64_t sampling_ratio) {
  check_roi_align(input, rois, spatial_scale, pooled_h, pooled_w, sampling_ratio);
  const auto type = input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const Shape s{input.size(0), input.size(1), input.size(2), input.size(3), pooled_h, pooled_w};
  at::Tensor output = at::empty({rois.size(0), s.channels, pooled_h, pooled_w}, input.options().dtype(type));
  if (output.numel() > 0) {
    const at::Tensor in = input.to(type).contiguous();
    const at::Tensor regions = rois.to(type).contiguous();
    if (type == at::kDouble) {
      forward<double>(in, regions, spatial_scale, s, sampling_ratio, output);
    } else {
      forward<float>(in, regions, spatial_scale, s, sampling_ratio, output);
    }
  }
  return output.to(input.scalar_type());
}

at::Tensor roi_align_backward(const at::Tensor& grad, const at::Tensor& rois, double spatial_scale,
                              int64_t batch, int64_t channels, int64_t height, int64_t width,
                              int64_t sampling_ratio) {
  check_roi_align_backward(grad, rois, spatial_scale, batch, channels, height, width, sampling_ratio);
  const auto type = grad.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const Shape s{batch, channels, height, width, grad.size(2), grad.size(3)};
  at::Tensor grad_input = at::zeros({batch, channels, height, width}, grad.options().dtype(type));
  if (grad.numel() > 0) {
    const at::Tensor from = grad.to(type).contiguous();
    const at::Tensor regions = rois.to(type).contiguous();
    if (type == at::kDouble) {
      backward<double>(from, regions, spatial_scale, s, sampling_ratio, grad_input);
    } else {
      backward<float>(from, regions, spatial_scale, s, sampling_ratio, grad_input);
    }
  }
  return grad_input.to(grad.scalar_type());
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("roi_align", TORCH_FN(mrb::roi_align));
  m.impl("roi_align_backward", TORCH_FN(mrb::roi_align_backward));
}
