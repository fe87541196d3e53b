// Sigmoid focal loss on CUDA: one thread per logit. The sum is taken per block in a fixed order and then
// over the blocks, so it is the same in every run. A target outside -1..C counts as background.
#include <ATen/AccumulateType.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "../sigmoid_focal_loss.h"
#include "launch.h"

namespace mrb {
namespace {

template <typename T>
__device__ T loss_at(const Focal<T>& focal, T x, int64_t target, int64_t column) {
  if (target == -1) return T(0);
  return target == column + 1 ? focal.positive(x) : focal.template negative<false>(x);
}

template <typename T>
__device__ T slope_at(const Focal<T>& focal, T x, int64_t target, int64_t column) {
  if (target == -1) return T(0);
  return target == column + 1 ? focal.positive_slope(x) : focal.template negative_slope<false>(x);
}

template <typename S, typename T>
__global__ void losses(int64_t total, int64_t columns, Focal<T> focal, const S* logits,
                       const int64_t* targets, S* out) {
  MRB_GRID_LOOP(i, total) {
    out[i] = static_cast<S>(loss_at(focal, static_cast<T>(logits[i]), targets[i / columns], i % columns));
  }
}

// One partial sum per block.
template <typename S, typename T>
__global__ void partial_sums(int64_t total, int64_t columns, Focal<T> focal, const S* logits,
                             const int64_t* targets, double* sums) {
  __shared__ double shared[kThreads];
  double sum = 0.0;
  MRB_GRID_LOOP(i, total) {
    sum += loss_at(focal, static_cast<T>(logits[i]), targets[i / columns], i % columns);
  }
  shared[threadIdx.x] = sum;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = shared[0];
}

template <typename S, typename T>
__global__ void slopes(int64_t total, int64_t columns, Focal<T> focal, const S* grad, int64_t grad_step,
                       const S* logits, const int64_t* targets, S* out) {
  MRB_GRID_LOOP(i, total) {
    const T slope = slope_at(focal, static_cast<T>(logits[i]), targets[i / columns], i % columns);
    out[i] = static_cast<S>(static_cast<T>(grad[i * grad_step]) * slope);
  }
}

at::Tensor sigmoid_focal_loss(const at::Tensor& logits, const at::Tensor& targets, double gamma,
                              double alpha) {
  const char* op = "sigmoid_focal_loss";
  check_focal(op, logits, targets, gamma, alpha);
  const c10::cuda::CUDAGuard guard(logits.device());
  const at::Tensor source = logits.contiguous();
  const at::Tensor labels = targets.to(at::kLong).contiguous();
  at::Tensor result = at::empty(source.sizes(), source.options());
  const int64_t total = source.numel();
  if (total == 0) return result;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, source.scalar_type(), "sigmoid_focal_loss", [&] {
    using T = at::acc_type<scalar_t, true>;
    const Focal<T> focal{static_cast<T>(gamma), static_cast<T>(alpha)};
    losses<scalar_t, T><<<blocks_for(total), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
        total, source.size(1), focal, source.const_data_ptr<scalar_t>(), labels.const_data_ptr<int64_t>(),
        result.mutable_data_ptr<scalar_t>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return result;
}

at::Tensor sigmoid_focal_loss_sum(const at::Tensor& logits, const at::Tensor& targets, double gamma,
                                  double alpha) {
  const char* op = "sigmoid_focal_loss_sum";
  check_focal(op, logits, targets, gamma, alpha);
  const c10::cuda::CUDAGuard guard(logits.device());
  const at::Tensor source = logits.contiguous();
  const at::Tensor labels = targets.to(at::kLong).contiguous();
  const auto type = source.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t total = source.numel();
  if (total == 0) return at::zeros({}, source.options().dtype(type));
  const unsigned int blocks = std::min(blocks_for(total), 4096u);
  const at::Tensor sums = at::empty({static_cast<int64_t>(blocks)}, source.options().dtype(at::kDouble));
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, source.scalar_type(), "sigmoid_focal_loss_sum", [&] {
        using T = at::acc_type<scalar_t, true>;
        const Focal<T> focal{static_cast<T>(gamma), static_cast<T>(alpha)};
        partial_sums<scalar_t, T><<<blocks, kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
            total, source.size(1), focal, source.const_data_ptr<scalar_t>(), labels.const_data_ptr<int64_t>(),
            sums.mutable_data_ptr<double>());
        C10_CUDA_KERNEL_LAUNCH_CHECK();
      });
  return sums.sum().to(type);
}

at::Tensor sigmoid_focal_loss_backward(const at::Tensor& grad, const at::Tensor& logits,
                                       const at::Tensor& targets, double gamma, double alpha) {
  const char* op = "sigmoid_focal_loss_backward";
  check_focal(op, logits, targets, gamma, alpha);
  check_focal_grad(op, grad, logits);
  const c10::cuda::CUDAGuard guard(logits.device());
  const at::Tensor source = logits.contiguous();
  const at::Tensor labels = targets.to(at::kLong).contiguous();
  const bool expanded = is_expanded_scalar(grad);
  const at::Tensor from = expanded ? grad : grad.contiguous();
  at::Tensor result = at::empty(source.sizes(), source.options());
  const int64_t total = source.numel();
  if (total == 0) return result;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, source.scalar_type(), "sigmoid_focal_loss_backward", [&] {
        using T = at::acc_type<scalar_t, true>;
        const Focal<T> focal{static_cast<T>(gamma), static_cast<T>(alpha)};
        slopes<scalar_t, T><<<blocks_for(total), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
            total, source.size(1), focal, from.const_data_ptr<scalar_t>(), expanded ? 0 : 1,
            source.const_data_ptr<scalar_t>(), labels.const_data_ptr<int64_t>(),
            result.mutable_data_ptr<scalar_t>());
        C10_CUDA_KERNEL_LAUNCH_CHECK();
      });
  return result;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("sigmoid_focal_loss", TORCH_FN(mrb::sigmoid_focal_loss));
  m.impl("sigmoid_focal_loss_sum", TORCH_FN(mrb::sigmoid_focal_loss_sum));
  m.impl("sigmoid_focal_loss_backward", TORCH_FN(mrb::sigmoid_focal_loss_backward));
}
