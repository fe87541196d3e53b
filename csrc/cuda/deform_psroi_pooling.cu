// Deformable position-sensitive RoI pooling on CUDA, one thread per output element. The backward pass adds
// with atomics, so its last bits vary from run to run (torch.use_deterministic_algorithms reports it). Half
// precision is summed in float32. An RoI or an offset with a NaN or an infinite value, or an image index
// outside the batch, gives NaN and no gradient.
#include <ATen/AccumulateType.h>
#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <ATen/cuda/Atomic.cuh>
#include <limits>

#include "../deform_psroi_pooling.h"
#include "../kernel_guard.h"
#include "launch.h"

namespace mrb {
namespace {

// The bin that a thread works on: its samples, and where it reads.
template <typename T>
struct Bin {
  T width, height;       // of the RoI, by which offsets are scaled
  int64_t plane, shift;  // offsets of the channel in the input, of the bin in trans
  T start_x, step_x, start_y, step_y;
  bool usable;

  __device__ Bin(int64_t i, const PsRoiArgs& pool, const T* rois, const T* trans) {
    const int64_t column = i % pool.pooled, row = i / pool.pooled % pool.pooled;
    const int64_t channel = i / (pool.pooled * pool.pooled) % pool.out_dim;
    const int64_t roi_index = i / (pool.pooled * pool.pooled * pool.out_dim);
    const T* roi = rois + 5 * roi_index;
    const PsRoiBox<T> box(roi, static_cast<T>(pool.scale));
    width = box.width;
    height = box.height;
    const int64_t class_index = channel / pool.channels_per_class(), area = pool.parts * pool.parts;
    shift = (roi_index * 2 * pool.classes + 2 * class_index) * area +
            psroi_part(row, pool.parts, pool.pooled) * pool.parts +
            psroi_part(column, pool.parts, pool.pooled);
    const T shift_x = trans != nullptr ? trans[shift] * static_cast<T>(pool.trans_std) : T(0);
    const T shift_y = trans != nullptr ? trans[shift + area] * static_cast<T>(pool.trans_std) : T(0);
    const PsAxis<T> x(box.left, box.width, column, pool.pooled, pool.samples, shift_x);
    const PsAxis<T> y(box.top, box.height, row, pool.pooled, pool.samples, shift_y);
    start_x = x.start;
    step_x = x.step;
    start_y = y.start;
    step_y = y.step;
    usable = roi[0] >= T(0) && roi[0] < static_cast<T>(pool.images) && box.finite &&
             start_x - start_x == T(0) && start_y - start_y == T(0);
    const int64_t group_row = psroi_part(row, pool.groups, pool.pooled);
    const int64_t group_column = psroi_part(column, pool.groups, pool.pooled);
    const int64_t image = usable ? static_cast<int64_t>(roi[0]) : 0;
    plane = (image * pool.channels + (channel * pool.groups + group_row) * pool.groups + group_column) *
            pool.height * pool.width;
  }

  // Calls visit(row tap, column tap) for the samples on the map; returns their count.
  template <typename Visit>
  __device__ int64_t visit(const PsRoiArgs& pool, const Visit& visit) const {
    int64_t count = 0;
    for (int64_t r = 0; r < pool.samples; ++r) {
      const T y = start_y + static_cast<T>(r) * step_y;
      if (!psroi_reads(y, pool.height)) continue;
      const BilinearTap<T> down = psroi_tap(y, pool.height);
      for (int64_t c = 0; c < pool.samples; ++c) {
        const T x = start_x + static_cast<T>(c) * step_x;
        if (!psroi_reads(x, pool.width)) continue;
        visit(down, psroi_tap(x, pool.width));
        ++count;
      }
    }
    return count;
  }

  __device__ int64_t count(const PsRoiArgs& pool) const {
    int64_t rows = 0, columns = 0;
    for (int64_t i = 0; i < pool.samples; ++i) {
      rows += psroi_reads(start_y + static_cast<T>(i) * step_y, pool.height);
      columns += psroi_reads(start_x + static_cast<T>(i) * step_x, pool.width);
    }
    return rows * columns;
  }
};

template <typename S, typename T>
__global__ void pool(int64_t total, PsRoiArgs pool, const S* input, const T* rois, const T* trans,
                     S* output) {
  MRB_GRID_LOOP(i, total) {
    const Bin<T> bin(i, pool, rois, trans);
    if (!bin.usable) {
      output[i] = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
      continue;
    }
    const S* map = input + bin.plane;
    T sum = T(0);
    const int64_t count = bin.visit(pool, [&](const BilinearTap<T>& y, const BilinearTap<T>& x) {
      const S *low = map + y.low * pool.width, *high = map + y.high * pool.width;
      const T top = (T(1) - x.weight) * static_cast<T>(low[x.low]) + x.weight * static_cast<T>(low[x.high]);
      const T bottom =
          (T(1) - x.weight) * static_cast<T>(high[x.low]) + x.weight * static_cast<T>(high[x.high]);
      sum += (T(1) - y.weight) * top + y.weight * bottom;
    });
    output[i] = static_cast<S>(count > 0 ? sum / static_cast<T>(count) : T(0));
  }
}

// maps, shifts: gradients of input and trans, or null.
template <typename S, typename T>
__global__ void scatter(int64_t total, PsRoiArgs pool, const S* grad, const S* input, const T* rois,
                        const T* trans, T* maps, T* shifts) {
  MRB_GRID_LOOP(i, total) {
    const Bin<T> bin(i, pool, rois, trans);
    if (!bin.usable) continue;
    const int64_t count = bin.count(pool);
    if (count == 0) continue;
    const T value = static_cast<T>(grad[i]) / static_cast<T>(count);
    T along_x = T(0), along_y = T(0);
    bin.visit(pool, [&](const BilinearTap<T>& y, const BilinearTap<T>& x) {
      const int64_t low = bin.plane + y.low * pool.width, high = bin.plane + y.high * pool.width;
      if (maps != nullptr) {
        const T top = (T(1) - y.weight) * value, bottom = y.weight * value;
        gpuAtomicAddNoReturn(maps + low + x.low, top * (T(1) - x.weight));
        gpuAtomicAddNoReturn(maps + low + x.high, top * x.weight);
        gpuAtomicAddNoReturn(maps + high + x.low, bottom * (T(1) - x.weight));
        gpuAtomicAddNoReturn(maps + high + x.high, bottom * x.weight);
      }
      if (shifts == nullptr) return;
      const T a = static_cast<T>(input[low + x.low]), b = static_cast<T>(input[low + x.high]);
      const T c = static_cast<T>(input[high + x.low]), d = static_cast<T>(input[high + x.high]);
      along_x += (T(1) - y.weight) * (b - a) + y.weight * (d - c);
      along_y += (T(1) - x.weight) * (c - a) + x.weight * (d - b);
    });
    if (shifts == nullptr) continue;
    const T scale = value * static_cast<T>(pool.trans_std);
    gpuAtomicAddNoReturn(shifts + bin.shift, along_x * scale * bin.width);
    gpuAtomicAddNoReturn(shifts + bin.shift + pool.parts * pool.parts, along_y * scale * bin.height);
  }
}

// What both passes read, contiguous; RoIs and offsets of type T.
struct Sources {
  at::Tensor input, rois, trans;

  Sources(const at::Tensor& maps, const at::Tensor& roi_rows, const std::optional<at::Tensor>& offsets,
          at::ScalarType type)
      : input(maps.contiguous()), rois(roi_rows.to(type).contiguous()) {
    if (offsets.has_value()) trans = offsets->to(type).contiguous();
  }

  template <typename T>
  const T* trans_data() const {
    return trans.defined() ? trans.const_data_ptr<T>() : nullptr;
  }
};

at::Tensor deform_psroi_pooling(const at::Tensor& input, const at::Tensor& rois,
                                const std::optional<at::Tensor>& trans, double spatial_scale,
                                int64_t output_dim, int64_t group_size, int64_t pooled_size,
                                int64_t part_size, int64_t sample_per_part, double trans_std) {
  const PsRoiArgs args = check_psroi("deform_psroi_pooling", input, rois, trans, spatial_scale, output_dim,
                                     group_size, pooled_size, part_size, sample_per_part, trans_std);
  const c10::cuda::CUDAGuard guard(input.device());
  const KernelGuard kernel_guard;
  at::Tensor output = at::empty({args.rois, args.out_dim, args.pooled, args.pooled}, input.options());
  if (output.numel() == 0) return output;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.scalar_type(), "deform_psroi_pooling", [&] {
    using T = at::acc_type<scalar_t, true>;
    const Sources from(input, rois, trans, c10::CppTypeToScalarType<T>::value);
    pool<scalar_t, T><<<blocks_for(output.numel()), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
        output.numel(), args, from.input.const_data_ptr<scalar_t>(), from.rois.const_data_ptr<T>(),
        from.trans_data<T>(), output.mutable_data_ptr<scalar_t>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return output;
}

std::tuple<at::Tensor, at::Tensor> deform_psroi_pooling_backward(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& rois,
    const std::optional<at::Tensor>& trans, double spatial_scale, int64_t output_dim, int64_t group_size,
    int64_t pooled_size, int64_t part_size, int64_t sample_per_part, double trans_std,
    std::array<bool, 2> needed) {
  const char* op = "deform_psroi_pooling_backward";
  const PsRoiArgs args = check_psroi(op, input, rois, trans, spatial_scale, output_dim, group_size,
                                     pooled_size, part_size, sample_per_part, trans_std);
  check_psroi_grad(op, args, input, grad, needed);
  at::globalContext().alertNotDeterministic("maskrcnn_benchmark::deform_psroi_pooling_backward on CUDA");
  const c10::cuda::CUDAGuard guard(input.device());
  const KernelGuard kernel_guard;
  const auto sum_type = input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto options = input.options().dtype(sum_type);
  at::Tensor maps, shifts;
  if (needed[0]) maps = at::zeros(input.sizes(), options);
  if (needed[1]) shifts = at::zeros(trans->sizes(), options);
  if (grad.numel() > 0 && (needed[0] || needed[1])) {
    const at::Tensor cotangent = grad.contiguous();
    AT_DISPATCH_FLOATING_TYPES_AND2(
        at::kHalf, at::kBFloat16, input.scalar_type(), "deform_psroi_pooling_backward", [&] {
          using T = at::acc_type<scalar_t, true>;
          const Sources from(input, rois, trans, sum_type);
          scatter<scalar_t, T><<<blocks_for(grad.numel()), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
              grad.numel(), args, cotangent.const_data_ptr<scalar_t>(), from.input.const_data_ptr<scalar_t>(),
              from.rois.const_data_ptr<T>(), from.trans_data<T>(),
              maps.defined() ? maps.mutable_data_ptr<T>() : nullptr,
              shifts.defined() ? shifts.mutable_data_ptr<T>() : nullptr);
          C10_CUDA_KERNEL_LAUNCH_CHECK();
        });
  }
  const at::TensorOptions none = input.options();
  return {maps.defined() ? maps.to(input.scalar_type()) : at::empty({0}, none),
          shifts.defined() ? shifts.to(trans->scalar_type()) : at::empty({0}, none)};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("deform_psroi_pooling", TORCH_FN(mrb::deform_psroi_pooling));
  m.impl("deform_psroi_pooling_backward", TORCH_FN(mrb::deform_psroi_pooling_backward));
}
