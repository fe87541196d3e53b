// RoI max pooling on CUDA: one thread per output element. The backward pass adds with atomics, so its last
// bits vary from run to run (torch.use_deterministic_algorithms reports it). An RoI with a NaN, an infinite
// value or an image index outside the batch gives NaN, index -1 and no gradient.
#include <ATen/AccumulateType.h>
#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <ATen/cuda/Atomic.cuh>
#include <limits>

#include "../memory_format.h"
#include "../roi_pool.h"
#include "launch.h"

namespace mrb {
namespace {

struct PoolShape {
  int64_t images, channels, height, width, pooled_h, pooled_w;
  bool channels_last;

  // Offset of a pixel in memory; `pixel` is row * width + column.
  __device__ int64_t at(int64_t image, int64_t channel, int64_t pixel) const {
    const int64_t plane = height * width;
    return image * channels * plane + (channels_last ? pixel * channels + channel : channel * plane + pixel);
  }
};

// Neighbouring threads take neighbouring bins of planar maps and neighbouring channels of channels-last ones.
template <typename S, typename T>
__global__ void pool(int64_t total, const S* input, PoolShape shape, T scale, const T* rois, S* output,
                     int32_t* argmax) {
  const int64_t area = shape.pooled_h * shape.pooled_w;
  MRB_GRID_LOOP(i, total) {
    const int64_t r = i / (area * shape.channels), rest = i % (area * shape.channels);
    const int64_t channel = shape.channels_last ? rest % shape.channels : rest / area;
    const int64_t bin = shape.channels_last ? rest / shape.channels : rest % area;
    const int64_t offset = (r * shape.channels + channel) * area + bin;
    const T* roi = rois + 5 * r;
    if (!(roi[0] >= T(0) && roi[0] < static_cast<T>(shape.images)) || !finite_roi(roi, scale)) {
      output[offset] = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
      argmax[offset] = -1;
      continue;
    }
    const PoolAxis<T> x(roi[1], roi[3], scale, shape.pooled_w), y(roi[2], roi[4], scale, shape.pooled_h);
    int64_t first_x, last_x, first_y, last_y;
    x.pixels(bin % shape.pooled_w, shape.width, &first_x, &last_x);
    y.pixels(bin / shape.pooled_w, shape.height, &first_y, &last_y);
    const bool empty = first_x >= last_x || first_y >= last_y;
    T best = empty ? T(0) : -std::numeric_limits<T>::infinity();
    int64_t index = empty ? -1 : first_y * shape.width + first_x;
    for (int64_t row = first_y; row < last_y; ++row) {
      for (int64_t column = first_x; column < last_x; ++column) {
        const int64_t pixel = row * shape.width + column;
        const T value = static_cast<T>(input[shape.at(static_cast<int64_t>(roi[0]), channel, pixel)]);
        if (value > best || value != value) {
          best = value;
          index = pixel;
        }
      }
    }
    output[offset] = static_cast<S>(best);
    argmax[offset] = static_cast<int32_t>(index);
  }
}

template <typename S, typename T>
__global__ void unpool(int64_t total, const S* grad, const T* rois, const int32_t* argmax, PoolShape shape,
                       T* sums) {
  const int64_t area = shape.pooled_h * shape.pooled_w, plane = shape.height * shape.width;
  MRB_GRID_LOOP(i, total) {
    const T image = rois[5 * (i / (area * shape.channels))];
    const int64_t pixel = argmax[i];
    if (pixel < 0 || pixel >= plane || !(image >= T(0) && image < static_cast<T>(shape.images))) continue;
    const int64_t channel = i / area % shape.channels;
    gpuAtomicAddNoReturn(sums + shape.at(static_cast<int64_t>(image), channel, pixel),
                         static_cast<T>(grad[i]));
  }
}

std::tuple<at::Tensor, at::Tensor> roi_pool(const at::Tensor& input, const at::Tensor& rois,
                                            double spatial_scale, int64_t pooled_h, int64_t pooled_w) {
  check_roi_pool(input, rois, spatial_scale, pooled_h, pooled_w);
  const c10::cuda::CUDAGuard guard(input.device());
  const bool channels_last = is_channels_last(input);
  const PoolShape shape{input.size(0), input.size(1), input.size(2), input.size(3),
                        pooled_h,      pooled_w,      channels_last};
  const at::Tensor source = channels_last ? input : input.contiguous();
  at::Tensor output = at::empty({rois.size(0), shape.channels, pooled_h, pooled_w}, input.options());
  at::Tensor argmax = at::empty(output.sizes(), input.options().dtype(at::kInt));
  if (output.numel() == 0) return {output, argmax};
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, output.scalar_type(), "roi_pool", [&] {
    using T = at::acc_type<scalar_t, true>;
    const at::Tensor typed_rois = rois.to(c10::CppTypeToScalarType<T>::value).contiguous();
    pool<scalar_t, T><<<blocks_for(output.numel()), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
        output.numel(), source.const_data_ptr<scalar_t>(), shape, static_cast<T>(spatial_scale),
        typed_rois.const_data_ptr<T>(), output.mutable_data_ptr<scalar_t>(),
        argmax.mutable_data_ptr<int32_t>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return {output, argmax};
}

at::Tensor roi_pool_backward(const at::Tensor& grad, const at::Tensor& rois, const at::Tensor& argmax,
                             int64_t batch, int64_t channels, int64_t height, int64_t width) {
  check_roi_pool_backward(grad, rois, argmax, batch, channels, height, width);
  at::globalContext().alertNotDeterministic("maskrcnn_benchmark::roi_pool_backward on CUDA");
  const c10::cuda::CUDAGuard guard(grad.device());
  const auto sum_type = grad.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor sums = at::zeros({batch, channels, height, width}, grad.options().dtype(sum_type));
  if (grad.numel() > 0) {
    const PoolShape shape{batch, channels, height, width, grad.size(2), grad.size(3), false};
    const at::Tensor from = grad.contiguous(), indices = argmax.contiguous();
    const at::Tensor typed_rois = rois.to(sum_type).contiguous();
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad.scalar_type(), "roi_pool_backward", [&] {
      using T = at::acc_type<scalar_t, true>;
      unpool<scalar_t, T><<<blocks_for(grad.numel()), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
          grad.numel(), from.const_data_ptr<scalar_t>(), typed_rois.const_data_ptr<T>(),
          indices.const_data_ptr<int32_t>(), shape, sums.mutable_data_ptr<T>());
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }
  return sums.to(grad.scalar_type());
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("roi_pool", TORCH_FN(mrb::roi_pool));
  m.impl("roi_pool_backward", TORCH_FN(mrb::roi_pool_backward));
}
