// Crop split on CUDA: one thread per element of the (H, W, n) side. Each element is read or written once, so
// both directions are deterministic.
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "../crop_split.h"
#include "launch.h"

namespace mrb {
namespace {

struct Geometry {
  const float* boxes;  // (n, 4)
  int64_t grid_size, height, width, count;

  __device__ int64_t total() const { return height * width * count; }

  // Index in the data of element i of the (H, W, n) side; -1 outside the box.
  __device__ int64_t source(int64_t i) const {
    const float* box = boxes + 4 * (i % count);
    const int32_t column = GridAxis(box[0], box[2], grid_size).cell(i / count % width);
    const int32_t row = GridAxis(box[1], box[3], grid_size).cell(i / (count * width));
    return row < 0 || column < 0 ? -1 : (row * grid_size + column) * total() + i;
  }
};

template <typename S>
__global__ void split(Geometry geometry, const S* data, S* out) {
  MRB_GRID_LOOP(i, geometry.total()) {
    const int64_t index = geometry.source(i);
    out[i] = index < 0 ? S(0) : data[index];
  }
}

template <typename S>
__global__ void scatter(Geometry geometry, const S* grad, S* out) {
  MRB_GRID_LOOP(i, geometry.total()) {
    const int64_t index = geometry.source(i);
    if (index >= 0) out[index] = grad[i];
  }
}

at::Tensor crop_split(const at::Tensor& data, const at::Tensor& boxes, int64_t grid_size) {
  check_crop_split("crop_split", "data", data, boxes, grid_size);
  const c10::cuda::CUDAGuard guard(data.device());
  const at::Tensor source = data.contiguous(), box_rows = boxes.to(at::kFloat).contiguous();
  at::Tensor result = at::empty({data.size(1), data.size(2), data.size(3)}, source.options());
  if (result.numel() == 0) return result;
  const Geometry geometry{box_rows.const_data_ptr<float>(), grid_size, data.size(1), data.size(2),
                          data.size(3)};
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, source.scalar_type(), "crop_split", [&] {
    split<scalar_t><<<blocks_for(result.numel()), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
        geometry, source.const_data_ptr<scalar_t>(), result.mutable_data_ptr<scalar_t>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return result;
}

at::Tensor crop_split_backward(const at::Tensor& grad, const at::Tensor& boxes, int64_t grid_size) {
  check_crop_split_grad("crop_split_backward", grad, boxes, grid_size);
  const c10::cuda::CUDAGuard guard(grad.device());
  const at::Tensor source = grad.contiguous(), box_rows = boxes.to(at::kFloat).contiguous();
  at::Tensor result =
      at::zeros({grid_size * grid_size, grad.size(0), grad.size(1), grad.size(2)}, source.options());
  if (result.numel() == 0) return result;
  const Geometry geometry{box_rows.const_data_ptr<float>(), grid_size, grad.size(0), grad.size(1),
                          grad.size(2)};
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, source.scalar_type(), "crop_split_backward", [&] {
    scatter<scalar_t><<<blocks_for(source.numel()), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
        geometry, source.const_data_ptr<scalar_t>(), result.mutable_data_ptr<scalar_t>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return result;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("crop_split", TORCH_FN(mrb::crop_split));
  m.impl("crop_split_backward", TORCH_FN(mrb::crop_split_backward));
}
