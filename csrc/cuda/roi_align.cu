// ROIAlign on CUDA: one thread per output number. The backward pass adds with atomics, so its last bits vary
// from run to run (torch.use_deterministic_algorithms reports it). Half precision is summed in float32. A
// region with a NaN, an infinite number or an image index outside the batch gives NaN and no gradient.
#include <ATen/AccumulateType.h>
#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <ATen/cuda/Atomic.cuh>
#include <limits>

#include "../roi_align.h"
#include "launch.h"

namespace mrb {
namespace {

struct Shape {
  int64_t images, channels, height, width, pooled_h, pooled_w;
};

// Which number of (R, C, pooled_h, pooled_w) a thread computes.
struct Place {
  int64_t roi, channel, row, column;

  __device__ Place(int64_t i, const Shape& s) {
    column = i % s.pooled_w;
    row = i / s.pooled_w % s.pooled_h;
    channel = i / (s.pooled_w * s.pooled_h) % s.channels;
    roi = i / (s.pooled_w * s.pooled_h * s.channels);
  }
};

// Calls visit(cell, weight) for the cells of the bin at `place`; false when the region is unusable.
template <typename T, typename Visit>
__device__ bool visit_bin(const T* roi, const Shape& s, const Place& place, T scale, int64_t sampling_ratio,
                          const Visit& visit) {
  if (!(roi[0] >= T(0) && roi[0] < static_cast<T>(s.images)) || !finite_roi(roi, scale)) return false;
  const RoiAxis<T> x(roi[1], roi[3], scale, s.pooled_w, sampling_ratio);
  const RoiAxis<T> y(roi[2], roi[4], scale, s.pooled_h, sampling_ratio);
  const T factor = T(1) / (x.grid * y.grid);
  int64_t first_x, last_x, first_y, last_y;
  x.inside(place.column, s.width, &first_x, &last_x);
  y.inside(place.row, s.height, &first_y, &last_y);
  for (int64_t iy = first_y; iy < last_y; ++iy) {
    const Tap<T> ty(y.position(place.row, iy), s.height);
    if (!ty.inside) continue;
    for (int64_t ix = first_x; ix < last_x; ++ix) {
      const Tap<T> tx(x.position(place.column, ix), s.width);
      if (!tx.inside) continue;
      const T top = (T(1) - ty.share) * factor, bottom = ty.share * factor;
      visit(ty.low * s.width + tx.low, top * (T(1) - tx.share));
      visit(ty.low * s.width + tx.high, top * tx.share);
      visit(ty.high * s.width + tx.low, bottom * (T(1) - tx.share));
      visit(ty.high * s.width + tx.high, bottom * tx.share);
    }
  }
  return true;
}

template <typename scalar_t, typename T>
__global__ void pool(int64_t total, const scalar_t* input, const T* rois, T scale, Shape s,
                     int64_t sampling_ratio, scalar_t* output) {
  MRB_GRID_LOOP(i, total) {
    const Place place(i, s);
    const T* roi = rois + 5 * place.roi;
    T sum = T(0);
    // The image index is checked in visit_bin, before the first cell is read.
    const bool usable = visit_bin(roi, s, place, scale, sampling_ratio, [&](int64_t cell, T weight) {
      const int64_t plane = static_cast<int64_t>(roi[0]) * s.channels + place.channel;
      sum += weight * static_cast<T>(input[plane * s.height * s.width + cell]);
    });
    output[i] = static_cast<scalar_t>(usable ? sum : std::numeric_limits<T>::quiet_NaN());
  }
}

template <typename scalar_t, typename T>
__global__ void spread(int64_t total, const scalar_t* grad, const T* rois, T scale, Shape s,
                       int64_t sampling_ratio, T* grad_input) {
  MRB_GRID_LOOP(i, total) {
    const Place place(i, s);
    const T* roi = rois + 5 * place.roi;
    const T value = static_cast<T>(grad[i]);
    visit_bin(roi, s, place, scale, sampling_ratio, [&](int64_t cell, T weight) {
      const int64_t plane = static_cast<int64_t>(roi[0]) * s.channels + place.channel;
      if (weight != T(0))
        gpuAtomicAddNoReturn(grad_input + plane * s.height * s.width + cell, weight * value);
    });
  }
}

at::Tensor roi_align(const at::Tensor& input, const at::Tensor& rois, double spatial_scale, int64_t pooled_h,
                     int64_t pooled_w, int64_t sampling_ratio) {
  check_roi_align(input, rois, spatial_scale, pooled_h, pooled_w, sampling_ratio);
  const c10::cuda::CUDAGuard guard(input.device());
  const Shape s{input.size(0), input.size(1), input.size(2), input.size(3), pooled_h, pooled_w};
  at::Tensor output = at::empty({rois.size(0), s.channels, pooled_h, pooled_w}, input.options());
  if (output.numel() == 0) return output;
  const at::Tensor in = input.contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.scalar_type(), "roi_align", [&] {
    using T = at::acc_type<scalar_t, true>;
    const at::Tensor regions = rois.to(c10::CppTypeToScalarType<T>::value).contiguous();
    pool<scalar_t, T><<<blocks_for(output.numel()), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
        output.numel(), in.const_data_ptr<scalar_t>(), regions.const_data_ptr<T>(),
        static_cast<T>(spatial_scale), s, sampling_ratio, output.mutable_data_ptr<scalar_t>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return output;
}

at::Tensor roi_align_backward(const at::Tensor& grad, const at::Tensor& rois, double spatial_scale,
                              int64_t batch, int64_t channels, int64_t height, int64_t width,
                              int64_t sampling_ratio) {
  check_roi_align_backward(grad, rois, spatial_scale, batch, channels, height, width, sampling_ratio);
  at::globalContext().alertNotDeterministic("maskrcnn_benchmark::roi_align_backward on CUDA");
  const c10::cuda::CUDAGuard guard(grad.device());
  const Shape s{batch, channels, height, width, grad.size(2), grad.size(3)};
  const auto sum_type = grad.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor grad_input = at::zeros({batch, channels, height, width}, grad.options().dtype(sum_type));
  if (grad.numel() == 0) return grad_input.to(grad.scalar_type());
  const at::Tensor from = grad.contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad.scalar_type(), "roi_align_backward", [&] {
    using T = at::acc_type<scalar_t, true>;
    const at::Tensor regions = rois.to(sum_type).contiguous();
    spread<scalar_t, T><<<blocks_for(grad.numel()), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
        grad.numel(), from.const_data_ptr<scalar_t>(), regions.const_data_ptr<T>(),
        static_cast<T>(spatial_scale), s, sampling_ratio, grad_input.mutable_data_ptr<T>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return grad_input.to(grad.scalar_type());
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("roi_align", TORCH_FN(mrb::roi_align));
  m.impl("roi_align_backward", TORCH_FN(mrb::roi_align_backward));
}
