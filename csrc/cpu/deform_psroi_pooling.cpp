// Deformable position-sensitive RoI pooling on the CPU. Which samples count depends on each axis alone, and
// so do bilinear weights: a bin is a product of two short lists of (row or column, weight), with the weights
// of samples in the same one summed. Output channels of a class are stored side by side and summed in
// vectors.
#include "../deform_psroi_pooling.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <limits>
#include <vector>

#include "../kernel_guard.h"
#include "../multiversion.h"

namespace mrb {
namespace {

constexpr int64_t kChannelBlock = 64;  // of one backward task

// Rows or columns that a bin reads: weight for the mean, and slope, its derivative by the position of the
// bin.
template <typename T>
struct AxisTaps {
  std::vector<int64_t> pixel;
  std::vector<T> weight, slope;
  int64_t count = 0;  // samples on the map

  void add(int64_t index, T value, T derivative) {
    for (size_t i = pixel.size(); i > 0 && i + 2 > pixel.size(); --i) {
      if (pixel[i - 1] == index) {
        weight[i - 1] += value;
        slope[i - 1] += derivative;
        return;
      }
    }
    pixel.push_back(index);
    weight.push_back(value);
    slope.push_back(derivative);
  }

  void fill(const PsAxis<T>& axis, int64_t samples, int64_t size) {
    pixel.clear();
    weight.clear();
    slope.clear();
    count = 0;
    for (int64_t i = 0; i < samples; ++i) {
      const T position = axis.position(i);
      if (!psroi_reads(position, size)) continue;
      ++count;
      const BilinearTap<T> tap = psroi_tap(position, size);
      const bool between = tap.high > tap.low;
      add(tap.low, T(1) - tap.weight, between ? T(-1) : T(0));
      if (between) add(tap.high, tap.weight, T(1));
    }
  }
};

template <typename T>
struct Bin {
  AxisTaps<T> rows, columns;
  bool usable = false;
  T factor = T(0);                // one over the number of samples
  T width = T(0), height = T(0);  // of the RoI, by which offsets are scaled

  void fill(const PsRoiArgs& pool, const T* roi, const T* trans, int64_t class_index, int64_t row,
            int64_t column) {
    const PsRoiBox<T> box(roi, static_cast<T>(pool.scale));
    T shift_x = T(0), shift_y = T(0);
    if (trans != nullptr) {
      const int64_t area = pool.parts * pool.parts;
      const T* shift = trans + 2 * class_index * area +
                       psroi_part(row, pool.parts, pool.pooled) * pool.parts +
                       psroi_part(column, pool.parts, pool.pooled);
      shift_x = shift[0] * static_cast<T>(pool.trans_std);
      shift_y = shift[area] * static_cast<T>(pool.trans_std);
    }
    const PsAxis<T> x(box.left, box.width, column, pool.pooled, pool.samples, shift_x);
    const PsAxis<T> y(box.top, box.height, row, pool.pooled, pool.samples, shift_y);
    usable = box.finite && x.start - x.start == T(0) && y.start - y.start == T(0);
    if (!usable) return;
    columns.fill(x, pool.samples, pool.width);
    rows.fill(y, pool.samples, pool.height);
    const int64_t count = rows.count * columns.count;
    factor = count > 0 ? T(1) / static_cast<T>(count) : T(0);
    width = box.width;
    height = box.height;
  }
};

// Channels of one map that a bin reads: `data` at the first of them, `row` and `pixel` values from one to the
// next.
template <typename T>
struct Channels {
  T* data;
  int64_t row, pixel, lanes;
};

template <typename T>
MRB_INLINE void gather(const Bin<T>& bin, const Channels<const T>& from, const T* row_weights,
                       const T* column_weights, T* MRB_RESTRICT out) {
  for (int64_t lane = 0; lane < from.lanes; ++lane) out[lane] = T(0);
  for (size_t r = 0; r < bin.rows.pixel.size(); ++r) {
    for (size_t c = 0; c < bin.columns.pixel.size(); ++c) {
      const T w = row_weights[r] * column_weights[c];
      const T* MRB_RESTRICT pixel =
          from.data + bin.rows.pixel[r] * from.row + bin.columns.pixel[c] * from.pixel;
      for (int64_t lane = 0; lane < from.lanes; ++lane) out[lane] += w * pixel[lane];
    }
  }
}

template <typename T>
MRB_INLINE void scatter(const Bin<T>& bin, const Channels<T>& to, const T* MRB_RESTRICT grad) {
  for (size_t r = 0; r < bin.rows.pixel.size(); ++r) {
    for (size_t c = 0; c < bin.columns.pixel.size(); ++c) {
      const T w = bin.rows.weight[r] * bin.columns.weight[c] * bin.factor;
      T* MRB_RESTRICT pixel = to.data + bin.rows.pixel[r] * to.row + bin.columns.pixel[c] * to.pixel;
      for (int64_t lane = 0; lane < to.lanes; ++lane) pixel[lane] += w * grad[lane];
    }
  }
}

MRB_MULTIVERSION void gather_bin(const Bin<float>& bin, const Channels<const float>& from,
                                 const float* row_weights, const float* column_weights, float* out) {
  gather(bin, from, row_weights, column_weights, out);
}

MRB_MULTIVERSION void gather_bin(const Bin<double>& bin, const Channels<const double>& from,
                                 const double* row_weights, const double* column_weights, double* out) {
  gather(bin, from, row_weights, column_weights, out);
}

MRB_MULTIVERSION void scatter_bin(const Bin<float>& bin, const Channels<float>& to, const float* grad) {
  scatter(bin, to, grad);
}

MRB_MULTIVERSION void scatter_bin(const Bin<double>& bin, const Channels<double>& to, const double* grad) {
  scatter(bin, to, grad);
}

// Offset of output channel `channel` at the group of a bin, in PsRoiSources::maps.
int64_t map_offset(const PsRoiArgs& pool, int64_t image, int64_t row, int64_t column, int64_t channel) {
  const int64_t g =
      psroi_part(row, pool.groups, pool.pooled) * pool.groups + psroi_part(column, pool.groups, pool.pooled);
  return image * pool.height * pool.width * pool.channels + g * pool.out_dim + channel;
}

// Everything one call reads, in the type of the sums. maps: (B, H, W, group, group, out_dim); grad: (R,
// out_dim, pooled, pooled).
template <typename T>
struct PsRoiSources {
  at::Tensor maps, rois, trans, grad;

  PsRoiSources(const PsRoiArgs& pool, const at::Tensor& input, const at::Tensor& roi_rows,
               const std::optional<at::Tensor>& offsets, const at::Tensor& cotangent) {
    constexpr auto type = c10::CppTypeToScalarType<T>::value;
    maps = input.reshape({pool.images, pool.out_dim, pool.groups, pool.groups, pool.height, pool.width})
               .permute({0, 4, 5, 2, 3, 1})
               .to(type)
               .contiguous();
    rois = roi_rows.to(type).contiguous();
    if (offsets.has_value()) trans = offsets->to(type).contiguous();
    if (cotangent.defined()) grad = cotangent.to(type).contiguous();
    const T* row = rois.const_data_ptr<T>();
    for (int64_t r = 0; r < pool.rois; ++r, row += 5) {
      TORCH_CHECK_VALUE(row[0] >= T(0) && row[0] < static_cast<T>(pool.images), "deform_psroi_pooling: rois[",
                        r, ", 0] (image index) must be from 0 to ", pool.images - 1, ", got ", row[0]);
    }
  }

  int64_t image(int64_t r) const { return static_cast<int64_t>(rois.const_data_ptr<T>()[5 * r]); }

  void bin(const PsRoiArgs& pool, int64_t r, int64_t class_index, int64_t row, int64_t column,
           Bin<T>& bin) const {
    const T* offsets =
        trans.defined() ? trans.const_data_ptr<T>() + r * trans.stride(0) : static_cast<const T*>(nullptr);
    bin.fill(pool, rois.const_data_ptr<T>() + 5 * r, offsets, class_index, row, column);
  }

  // Channels of a class, from the one at `channel` on, at the group of a bin of RoI r.
  Channels<const T> channels(const PsRoiArgs& pool, int64_t r, int64_t row, int64_t column,
                             int64_t channel) const {
    const T* map = maps.const_data_ptr<T>() + map_offset(pool, image(r), row, column, channel);
    return {map, pool.width * pool.channels, pool.channels, pool.channels_per_class()};
  }

  const T* grad_data(const PsRoiArgs& pool, int64_t r, int64_t channel) const {
    return grad.const_data_ptr<T>() + (r * pool.out_dim + channel) * pool.pooled * pool.pooled;
  }
};

// Calls visit(class, row, column) for every bin of an RoI.
template <typename Visit>
void each_bin(const PsRoiArgs& pool, const Visit& visit) {
  for (int64_t class_index = 0; class_index < pool.classes; ++class_index) {
    for (int64_t row = 0; row < pool.pooled; ++row) {
      for (int64_t column = 0; column < pool.pooled; ++column) visit(class_index, row, column);
    }
  }
}

// (rows, columns) -> (columns, rows).
template <typename T>
void transpose(const T* from, int64_t rows, int64_t columns, T* to) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) to[c * rows + r] = from[r * columns + c];
  }
}

template <typename T>
at::Tensor pool_all(const PsRoiArgs& pool, const PsRoiSources<T>& from) {
  const int64_t lanes = pool.channels_per_class(), area = pool.pooled * pool.pooled;
  at::Tensor result = at::empty({pool.rois, pool.out_dim, pool.pooled, pool.pooled}, from.maps.options());
  at::parallel_for(0, pool.rois, 1, [&](int64_t first, int64_t last) {
    Bin<T> bin;
    std::vector<T> pooled(area * pool.out_dim);
    for (int64_t r = first; r < last; ++r) {
      each_bin(pool, [&](int64_t class_index, int64_t row, int64_t column) {
        from.bin(pool, r, class_index, row, column, bin);
        T* sums = pooled.data() + (row * pool.pooled + column) * pool.out_dim + class_index * lanes;
        if (!bin.usable) {
          std::fill(sums, sums + lanes, std::numeric_limits<T>::quiet_NaN());
          return;
        }
        gather_bin(bin, from.channels(pool, r, row, column, class_index * lanes), bin.rows.weight.data(),
                   bin.columns.weight.data(), sums);
        for (int64_t lane = 0; lane < lanes; ++lane) sums[lane] *= bin.factor;
      });
      transpose(pooled.data(), area, pool.out_dim, result.mutable_data_ptr<T>() + r * result.stride(0));
    }
  });
  return result;
}

// Gradient of the maps, (B, H, W, group, group, out_dim). A task is a block of channels of one image.
template <typename T>
at::Tensor scatter_all(const PsRoiArgs& pool, const PsRoiSources<T>& from) {
  at::Tensor result = at::zeros_like(from.maps);
  const int64_t lanes = pool.channels_per_class(), blocks = (lanes + kChannelBlock - 1) / kChannelBlock;
  const int64_t tasks = pool.images * pool.classes * blocks, area = pool.pooled * pool.pooled;
  at::parallel_for(0, tasks, 1, [&](int64_t task, int64_t last) {
    Bin<T> bin;
    std::vector<T> grads(area * std::min(kChannelBlock, lanes));
    for (; task < last; ++task) {
      const int64_t image = task / (pool.classes * blocks), class_index = task / blocks % pool.classes;
      const int64_t lane = task % blocks * kChannelBlock, count = std::min(kChannelBlock, lanes - lane);
      const int64_t channel = class_index * lanes + lane;
      for (int64_t r = 0; r < pool.rois; ++r) {
        if (from.image(r) != image) continue;
        transpose(from.grad_data(pool, r, channel), count, area, grads.data());
        for (int64_t b = 0; b < area; ++b) {
          const int64_t row = b / pool.pooled, column = b % pool.pooled;
          from.bin(pool, r, class_index, row, column, bin);
          if (!bin.usable) continue;
          T* map = result.mutable_data_ptr<T>() + map_offset(pool, image, row, column, channel);
          scatter_bin(bin, {map, pool.width * pool.channels, pool.channels, count}, grads.data() + b * count);
        }
      }
    }
  });
  return result;
}

// Gradient of trans.
template <typename T>
at::Tensor trans_grad(const PsRoiArgs& pool, const PsRoiSources<T>& from) {
  at::Tensor result = at::zeros_like(from.trans);
  const int64_t lanes = pool.channels_per_class(), area = pool.pooled * pool.pooled;
  at::parallel_for(0, pool.rois, 1, [&](int64_t first, int64_t last) {
    Bin<T> bin;
    std::vector<T> slopes(lanes), grads(area * pool.out_dim);
    for (int64_t r = first; r < last; ++r) {
      transpose(from.grad_data(pool, r, 0), pool.out_dim, area, grads.data());
      T* shifts = result.mutable_data_ptr<T>() + r * result.stride(0);
      each_bin(pool, [&](int64_t class_index, int64_t row, int64_t column) {
        from.bin(pool, r, class_index, row, column, bin);
        if (!bin.usable) return;
        const T* grad = grads.data() + (row * pool.pooled + column) * pool.out_dim + class_index * lanes;
        const auto map = from.channels(pool, r, row, column, class_index * lanes);
        const auto slope = [&](const T* rows, const T* columns, T side) {
          gather_bin(bin, map, rows, columns, slopes.data());
          T sum = T(0);
          for (int64_t lane = 0; lane < lanes; ++lane) sum += grad[lane] * slopes[lane];
          return sum * bin.factor * side * static_cast<T>(pool.trans_std);
        };
        T* shift = shifts + 2 * class_index * pool.parts * pool.parts +
                   psroi_part(row, pool.parts, pool.pooled) * pool.parts +
                   psroi_part(column, pool.parts, pool.pooled);
        shift[0] += slope(bin.rows.weight.data(), bin.columns.slope.data(), bin.width);
        shift[pool.parts * pool.parts] += slope(bin.rows.slope.data(), bin.columns.weight.data(), bin.height);
      });
    }
  });
  return result;
}

at::Tensor deform_psroi_pooling(const at::Tensor& input, const at::Tensor& rois,
                                const std::optional<at::Tensor>& trans, double spatial_scale,
                                int64_t output_dim, int64_t group_size, int64_t pooled_size,
                                int64_t part_size, int64_t sample_per_part, double trans_std) {
  const PsRoiArgs pool = check_psroi("deform_psroi_pooling", input, rois, trans, spatial_scale, output_dim,
                                     group_size, pooled_size, part_size, sample_per_part, trans_std);
  const KernelGuard kernel_guard;
  at::Tensor result;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.scalar_type(), "deform_psroi_pooling", [&] {
    using T = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    const PsRoiSources<T> from(pool, input, rois, trans, at::Tensor());
    result = pool_all(pool, from).to(input.scalar_type());
  });
  return result;
}

std::tuple<at::Tensor, at::Tensor> deform_psroi_pooling_backward(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& rois,
    const std::optional<at::Tensor>& trans, double spatial_scale, int64_t output_dim, int64_t group_size,
    int64_t pooled_size, int64_t part_size, int64_t sample_per_part, double trans_std,
    std::array<bool, 2> needed) {
  const char* op = "deform_psroi_pooling_backward";
  const PsRoiArgs pool = check_psroi(op, input, rois, trans, spatial_scale, output_dim, group_size,
                                     pooled_size, part_size, sample_per_part, trans_std);
  check_psroi_grad(op, pool, input, grad, needed);
  const KernelGuard kernel_guard;
  at::Tensor maps = at::empty({0}, input.options()), shifts = at::empty({0}, input.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, input.scalar_type(), "deform_psroi_pooling_backward", [&] {
        using T = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
        const PsRoiSources<T> from(pool, input, rois, trans, grad);
        if (needed[0]) {
          maps = at::empty(input.sizes(), input.options());
          maps.view({pool.images, pool.out_dim, pool.groups, pool.groups, pool.height, pool.width})
              .copy_(scatter_all(pool, from).permute({0, 5, 3, 4, 1, 2}));
        }
        if (needed[1]) shifts = trans_grad(pool, from).to(trans->scalar_type());
      });
  return {maps, shifts};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("deform_psroi_pooling", TORCH_FN(mrb::deform_psroi_pooling));
  m.impl("deform_psroi_pooling_backward", TORCH_FN(mrb::deform_psroi_pooling_backward));
}
