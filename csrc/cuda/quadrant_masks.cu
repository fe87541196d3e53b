// Quadrant masks and their loss on CUDA. Masks: one thread per pixel of every plane. Loss: one block per
// instance and strip of rows. Gradients: one block per grid cell of an instance sums over its pixels, one
// thread per pixel of the basis sums over the instances. Nothing is added with atomics, so every sum has a
// fixed order and results are the same in every run.
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <limits>

#include "../kernel_guard.h"
#include "quadrants.h"

namespace mrb {
namespace {

constexpr int kWarp = 32;
constexpr int kMapsAtOnce = 32;  // sums that a thread holds
constexpr int64_t kStripRows = 16;

// Derivative by the logit of a pixel, from the gradient of the masks.
template <typename T>
struct MaskSlope {
  const T* grad;
  const T* masks;

  __device__ T operator()(const Quadrants<T>& q, int64_t n, int64_t cell, int64_t pixel) const {
    const T p = masks[n * q.plane() + pixel];
    return grad[n * q.plane() + pixel] * (T(1) - p) * p;
  }
};

// Target masks; an instance whose index is out of range has NaN for its loss and slopes.
struct Targets {
  const uint8_t* planes;
  const int64_t* index;
  int64_t count;

  __device__ bool known(int64_t n) const { return index[n] >= 0 && index[n] < count; }
  __device__ bool at(int64_t n, int64_t plane, int64_t pixel) const {
    return planes[index[n] * plane + pixel] != 0;
  }
};

template <typename T>
struct LossSlope {
  const T* grad;
  Targets targets;

  __device__ T operator()(const Quadrants<T>& q, int64_t n, int64_t cell, int64_t pixel) const {
    if (!targets.known(n)) return std::numeric_limits<T>::quiet_NaN();
    const T p = q.probability(n, cell, pixel);
    return grad[n] * cross_entropy_slope(p, targets.at(n, q.plane(), pixel));
  }
};

template <typename T>
__device__ T warp_sum(T value) {
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
  return value;
}

// One partial sum per instance and strip of rows.
template <typename T>
__global__ void loss_parts(Quadrants<T> q, Targets targets, int64_t strips, double* parts) {
  __shared__ double shared[kThreads / kWarp];
  for (int64_t block = blockIdx.x; block < q.instances * strips; block += gridDim.x) {
    const int64_t n = block / strips, from = block % strips * kStripRows;
    const GridAxis columns = q.columns(n), rows = q.rows(n);
    const int64_t x = columns.border(0, q.width), w = columns.border(columns.grid_size, q.width) - x;
    const int64_t y = max(from, rows.border(0, q.height));
    const int64_t h = min(from + kStripRows, rows.border(rows.grid_size, q.height)) - y;
    double sum = 0.0;
    for (int64_t i = threadIdx.x; h > 0 && i < w * h; i += blockDim.x) {
      const int64_t pixel = (y + i / w) * q.width + x + i % w;
      const T p = q.probability(n, q.cell(n, pixel), pixel);
      sum += targets.known(n) ? cross_entropy(p, targets.at(n, q.plane(), pixel))
                              : std::numeric_limits<T>::quiet_NaN();
    }
    sum = warp_sum(sum);
    if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      double total = 0.0;
      for (double part : shared) total += part;
      parts[block] = total;
    }
    __syncthreads();
  }
}

template <typename T, typename Slope>
__global__ void coefficient_grads(Quadrants<T> q, Slope slope, T* out) {
  __shared__ T shared[kThreads / kWarp][kMapsAtOnce];
  for (int64_t pair = blockIdx.x; pair < q.pairs(); pair += gridDim.x) {
    const int64_t n = pair / (q.grid_size * q.grid_size), cell = pair % (q.grid_size * q.grid_size);
    const GridAxis columns = q.columns(n), rows = q.rows(n);
    const int32_t column = static_cast<int32_t>(cell % q.grid_size),
                  row = static_cast<int32_t>(cell / q.grid_size);
    const int64_t x = columns.border(column, q.width), w = columns.border(column + 1, q.width) - x;
    const int64_t y = rows.border(row, q.height), h = rows.border(row + 1, q.height) - y;
    for (int64_t first = 0; first < q.maps; first += kMapsAtOnce) {
      const int64_t maps = min(q.maps - first, static_cast<int64_t>(kMapsAtOnce));
      T sums[kMapsAtOnce] = {};
      for (int64_t i = threadIdx.x; i < w * h; i += blockDim.x) {
        const int64_t pixel = (y + i / w) * q.width + x + i % w;
        const T value = slope(q, n, cell, pixel);
#pragma unroll
        for (int k = 0; k < kMapsAtOnce; ++k) {
          if (k < maps) sums[k] += value * q.basis[(first + k) * q.plane() + pixel];
        }
      }
#pragma unroll
      for (int k = 0; k < kMapsAtOnce; ++k) {
        const T sum = warp_sum(sums[k]);
        if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp][k] = sum;
      }
      __syncthreads();
      if (threadIdx.x < maps) {
        T total = T(0);
        for (int warp = 0; warp < kThreads / kWarp; ++warp) total += shared[warp][threadIdx.x];
        out[pair * q.maps + first + threadIdx.x] = total;
      }
      __syncthreads();
    }
  }
}

template <typename T, typename Slope>
__global__ void basis_grads(Quadrants<T> q, Slope slope, T* out) {
  MRB_GRID_LOOP(pixel, q.plane()) {
    for (int64_t first = 0; first < q.maps; first += kMapsAtOnce) {
      T sums[kMapsAtOnce] = {};
      for (int64_t n = 0; n < q.instances; ++n) {
        const int64_t cell = q.cell(n, pixel);
        if (cell < 0) continue;
        const T value = slope(q, n, cell, pixel);
        const T* factors = q.of(n, cell) + first;
#pragma unroll
        for (int k = 0; k < kMapsAtOnce; ++k) {
          if (first + k < q.maps) sums[k] += value * factors[k];
        }
      }
#pragma unroll
      for (int k = 0; k < kMapsAtOnce; ++k) {
        if (first + k < q.maps) out[(first + k) * q.plane() + pixel] = sums[k];
      }
    }
  }
}

unsigned int grid_of(int64_t blocks) {
  return static_cast<unsigned int>(std::max<int64_t>(1, std::min<int64_t>(blocks, 1 << 20)));
}

using Gradients = std::tuple<at::Tensor, at::Tensor>;

template <typename T, typename Slope>
Gradients gradients(const Quadrants<T>& q, const Slope& slope, const at::Tensor& coefficients,
                    const at::Tensor& basis, at::ScalarType type) {
  at::Tensor to_coefficients = at::zeros(coefficients.sizes(), coefficients.options().dtype(type));
  at::Tensor to_basis = at::zeros(basis.sizes(), basis.options().dtype(type));
  if (to_coefficients.numel() > 0 && to_basis.numel() > 0) {
    const auto stream = at::cuda::getCurrentCUDAStream();
    coefficient_grads<<<grid_of(q.pairs()), kThreads, 0, stream>>>(q, slope,
                                                                   to_coefficients.mutable_data_ptr<T>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    basis_grads<<<blocks_for(q.plane()), kThreads, 0, stream>>>(q, slope, to_basis.mutable_data_ptr<T>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return {to_coefficients.to(coefficients.scalar_type()), to_basis.to(basis.scalar_type())};
}

at::Tensor quadrant_masks(const at::Tensor& coefficients, const at::Tensor& basis, const at::Tensor& boxes,
                          int64_t grid_size) {
  check_quadrants("quadrant_masks", coefficients, basis, boxes, grid_size);
  const KernelGuard kernel_guard;
  const c10::cuda::CUDAGuard guard(coefficients.device());
  const QuadrantTensors tensors(coefficients, basis, boxes, grid_size, wide_type(coefficients, basis));
  at::Tensor masks =
      at::empty({coefficients.size(0), basis.size(1), basis.size(2)}, tensors.coefficients.options());
  if (masks.numel() == 0) return masks;
  AT_DISPATCH_FLOATING_TYPES(masks.scalar_type(), "quadrant_masks", [&] {
    soft_masks<scalar_t><<<blocks_for(masks.numel()), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
        tensors.view<scalar_t>(), 0, masks.numel(), masks.mutable_data_ptr<scalar_t>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return masks;
}

Gradients quadrant_masks_backward(const at::Tensor& grad, const at::Tensor& masks,
                                  const at::Tensor& coefficients, const at::Tensor& basis,
                                  const at::Tensor& boxes, int64_t grid_size) {
  const char* op = "quadrant_masks_backward";
  check_quadrants(op, coefficients, basis, boxes, grid_size);
  check_planes(op, "grad", grad, coefficients, basis);
  check_planes(op, "masks", masks, coefficients, basis);
  const KernelGuard kernel_guard;
  const c10::cuda::CUDAGuard guard(coefficients.device());
  const auto type = wide_type(coefficients, basis);
  const QuadrantTensors tensors(coefficients, basis, boxes, grid_size, type);
  const at::Tensor above = grad.contiguous(), p = masks.contiguous();
  Gradients result;
  AT_DISPATCH_FLOATING_TYPES(type, "quadrant_masks_backward", [&] {
    const MaskSlope<scalar_t> slope{above.const_data_ptr<scalar_t>(), p.const_data_ptr<scalar_t>()};
    result = gradients<scalar_t>(tensors.view<scalar_t>(), slope, coefficients, basis, type);
  });
  return result;
}

at::Tensor quadrant_mask_loss(const at::Tensor& coefficients, const at::Tensor& basis,
                              const at::Tensor& boxes, const at::Tensor& targets,
                              const at::Tensor& target_index, int64_t grid_size) {
  const char* op = "quadrant_mask_loss";
  check_quadrants(op, coefficients, basis, boxes, grid_size);
  check_mask_targets(op, targets, target_index, coefficients, basis);
  const KernelGuard kernel_guard;
  const c10::cuda::CUDAGuard guard(coefficients.device());
  const auto type = wide_type(coefficients, basis);
  const QuadrantTensors tensors(coefficients, basis, boxes, grid_size, type);
  const at::Tensor planes = targets.contiguous(), index = target_index.contiguous();
  const int64_t strips = (basis.size(1) + kStripRows - 1) / kStripRows;
  at::Tensor parts =
      at::empty({coefficients.size(0), strips}, tensors.coefficients.options().dtype(at::kDouble));
  if (parts.numel() == 0) return at::zeros({coefficients.size(0)}, tensors.coefficients.options());
  const Targets target_masks{static_cast<const uint8_t*>(planes.const_data_ptr()),
                             index.const_data_ptr<int64_t>(), planes.size(0)};
  AT_DISPATCH_FLOATING_TYPES(type, "quadrant_mask_loss", [&] {
    loss_parts<scalar_t><<<grid_of(parts.numel()), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
        tensors.view<scalar_t>(), target_masks, strips, parts.mutable_data_ptr<double>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return parts.sum(1).to(type);
}

Gradients quadrant_mask_loss_backward(const at::Tensor& grad, const at::Tensor& coefficients,
                                      const at::Tensor& basis, const at::Tensor& boxes,
                                      const at::Tensor& targets, const at::Tensor& target_index,
                                      int64_t grid_size) {
  const char* op = "quadrant_mask_loss_backward";
  check_quadrants(op, coefficients, basis, boxes, grid_size);
  check_mask_targets(op, targets, target_index, coefficients, basis);
  check_mask_loss_grad(op, grad, coefficients, basis);
  const KernelGuard kernel_guard;
  const c10::cuda::CUDAGuard guard(coefficients.device());
  const auto type = wide_type(coefficients, basis);
  const QuadrantTensors tensors(coefficients, basis, boxes, grid_size, type);
  const at::Tensor planes = targets.contiguous(), index = target_index.contiguous();
  const at::Tensor above = grad.contiguous();
  const Targets target_masks{static_cast<const uint8_t*>(planes.const_data_ptr()),
                             index.const_data_ptr<int64_t>(), planes.size(0)};
  Gradients result;
  AT_DISPATCH_FLOATING_TYPES(type, "quadrant_mask_loss_backward", [&] {
    const LossSlope<scalar_t> slope{above.const_data_ptr<scalar_t>(), target_masks};
    result = gradients<scalar_t>(tensors.view<scalar_t>(), slope, coefficients, basis, type);
  });
  return result;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("quadrant_masks", TORCH_FN(mrb::quadrant_masks));
  m.impl("quadrant_masks_backward", TORCH_FN(mrb::quadrant_masks_backward));
  m.impl("quadrant_mask_loss", TORCH_FN(mrb::quadrant_mask_loss));
  m.impl("quadrant_mask_loss_backward", TORCH_FN(mrb::quadrant_mask_loss_backward));
}
