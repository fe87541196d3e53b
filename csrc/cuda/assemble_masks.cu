// Quadrant masks at the size of the image, on CUDA: the soft masks of some instances at a time, then one
// thread per pixel of the result.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "../kernel_guard.h"
#include "quadrants.h"

namespace mrb {
namespace {

constexpr int64_t kSoftValues = 1 << 24;  // 64 MB of soft masks at a time, or one

__global__ void resize(const float* soft, const float* boxes, int64_t total, int64_t source_h,
                       int64_t source_w, int64_t resized_h, int64_t resized_w, int64_t height, int64_t width,
                       float step_y, float step_x, float threshold, bool* out) {
  MRB_GRID_LOOP(i, total) {
    const int64_t column = i % width, row = i / width % height, n = i / (width * height);
    bool inside = row < resized_h && column < resized_w;
    if (inside) {
      const float* box = boxes + 4 * n;
      const BilinearTap<float> x = resize_tap(column, source_w, step_x),
                               y = resize_tap(row, source_h, step_y);
      inside = x.high >= box[0] && x.low < box[2] && y.high >= box[1] && y.low < box[3];
      if (inside) {
        const float* upper = soft + (n * source_h + y.low) * source_w;
        const float* lower = soft + (n * source_h + y.high) * source_w;
        const float above = (1.0f - x.weight) * upper[x.low] + x.weight * upper[x.high];
        const float below = (1.0f - x.weight) * lower[x.low] + x.weight * lower[x.high];
        inside = (1.0f - y.weight) * above + y.weight * below > threshold;
      }
    }
    out[i] = inside;
  }
}

at::Tensor assemble_masks(const at::Tensor& coefficients, const at::Tensor& basis, const at::Tensor& boxes,
                          int64_t grid_size, int64_t resized_h, int64_t resized_w, int64_t height,
                          int64_t width, double threshold, double step_y, double step_x) {
  const char* op = "assemble_masks";
  check_quadrants(op, coefficients, basis, boxes, grid_size);
  check_assembly(op, basis, resized_h, resized_w, height, width, threshold, step_y, step_x);
  const KernelGuard kernel_guard;
  const c10::cuda::CUDAGuard guard(coefficients.device());
  const int64_t instances = coefficients.size(0), plane = basis.size(1) * basis.size(2);
  at::Tensor masks = at::empty({instances, height, width}, coefficients.options().dtype(at::kBool));
  if (masks.numel() == 0) return masks;
  const QuadrantTensors tensors(coefficients, basis, boxes, grid_size, at::kFloat);
  const Quadrants<float> q = tensors.view<float>();
  const int64_t at_once = std::min(instances, std::max<int64_t>(1, kSoftValues / plane));
  const at::Tensor soft = at::empty({at_once, plane}, tensors.basis.options());
  const auto stream = at::cuda::getCurrentCUDAStream();
  for (int64_t first = 0; first < instances; first += at_once) {
    const int64_t count = std::min(at_once, instances - first);
    soft_masks<float><<<blocks_for(count * plane), kThreads, 0, stream>>>(q, first, count * plane,
                                                                          soft.mutable_data_ptr<float>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    const int64_t pixels = count * height * width;
    resize<<<blocks_for(pixels), kThreads, 0, stream>>>(
        soft.const_data_ptr<float>(), q.boxes + 4 * first, pixels, q.height, q.width, resized_h, resized_w,
        height, width, resize_step(q.height, resized_h, step_y), resize_step(q.width, resized_w, step_x),
        static_cast<float>(threshold), masks.mutable_data_ptr<bool>() + first * height * width);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return masks;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) { m.impl("assemble_masks", TORCH_FN(mrb::assemble_masks)); }
