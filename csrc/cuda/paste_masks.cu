// Mask pasting on CUDA: one thread per pixel of the result, all of which are written.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "../paste_masks.h"
#include "launch.h"

namespace mrb {
namespace {

// Probability at a pixel of the mask with its zero padding.
__device__ float padded_mask(const float* mask, int64_t side, int64_t padding, int64_t row, int64_t column) {
  const int64_t r = row - padding, c = column - padding;
  return r >= 0 && r < side && c >= 0 && c < side ? mask[r * side + c] : 0.0f;
}

__global__ void paste(int64_t total, const float* masks, const float4* boxes, int64_t side, int64_t padding,
                      float scale, int64_t height, int64_t width, float threshold, bool* out) {
  const int64_t source = side + 2 * padding;
  MRB_GRID_LOOP(i, total) {
    const int64_t column = i % width;
    const int64_t row = i / width % height;
    const int64_t n = i / (width * height);
    const float4 box = boxes[n];
    const PasteSpan x = paste_span(box.x, box.z, scale, width);
    const PasteSpan y = paste_span(box.y, box.w, scale, height);
    bool inside = column >= x.low && column < x.high && row >= y.low && row < y.high;
    if (inside) {
      const auto tx = resize_tap(column - x.start, source, resize_step(source, x.size));
      const auto ty = resize_tap(row - y.start, source, resize_step(source, y.size));
      const float* mask = masks + n * side * side;
      const float upper = (1.0f - tx.weight) * padded_mask(mask, side, padding, ty.low, tx.low) +
                          tx.weight * padded_mask(mask, side, padding, ty.low, tx.high);
      const float lower = (1.0f - tx.weight) * padded_mask(mask, side, padding, ty.high, tx.low) +
                          tx.weight * padded_mask(mask, side, padding, ty.high, tx.high);
      inside = (1.0f - ty.weight) * upper + ty.weight * lower > threshold;
    }
    out[i] = inside;
  }
}

at::Tensor paste_masks(const at::Tensor& masks, const at::Tensor& boxes, int64_t height, int64_t width,
                       double threshold, int64_t padding) {
  check_paste_masks(masks, boxes, height, width, threshold, padding);
  const c10::cuda::CUDAGuard guard(masks.device());
  const int64_t side = masks.size(1);
  at::Tensor result = at::empty({masks.size(0), height, width}, masks.options().dtype(at::kBool));
  if (result.numel() == 0) return result;
  const at::Tensor source = masks.to(at::kFloat).contiguous();
  const at::Tensor box_rows = boxes.to(at::kFloat).contiguous();
  const float scale = static_cast<float>(static_cast<double>(side + 2 * padding) / static_cast<double>(side));
  paste<<<blocks_for(result.numel()), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
      result.numel(), source.const_data_ptr<float>(),
      reinterpret_cast<const float4*>(box_rows.const_data_ptr<float>()), side, padding, scale, height, width,
      static_cast<float>(threshold), result.mutable_data_ptr<bool>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return result;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) { m.impl("paste_masks", TORCH_FN(mrb::paste_masks)); }
