// Level assignment and RoIAlign over an FPN on CUDA; the pooling kernels are those of roi_align.cu.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "../fpn_roi_align.h"
#include "launch.h"

namespace mrb {
namespace {

// The level of each row of `boxes`, whose rows are `stride` values apart.
__global__ void assign(int64_t total, const float* boxes, int64_t stride, LevelRule rule, int32_t* levels) {
  MRB_GRID_LOOP(i, total) {
    const float* box = boxes + i * stride;
    levels[i] = rule(box[0], box[1], box[2], box[3]);
  }
}

}  // namespace

at::Tensor assign_levels_cuda(const at::Tensor& boxes, const LevelRule& rule) {
  at::Tensor levels = at::empty({boxes.size(0)}, boxes.options().dtype(at::kInt));
  if (boxes.size(0) == 0) return levels;
  const at::Tensor rows = boxes.to(at::kFloat).contiguous();
  const int64_t stride = boxes.size(1);
  assign<<<blocks_for(rows.size(0)), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
      rows.size(0), rows.const_data_ptr<float>() + stride - 4, stride, rule,
      levels.mutable_data_ptr<int32_t>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return levels;
}

namespace {

at::Tensor fpn_levels(const at::Tensor& boxes, int64_t first_level, int64_t levels, int64_t canonical_level,
                      double canonical_size) {
  check_fpn_levels(boxes);
  const LevelRule rule = make_level_rule("fpn_levels", first_level, levels, canonical_level, canonical_size);
  const c10::cuda::CUDAGuard guard(boxes.device());
  return assign_levels_cuda(boxes, rule);
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("fpn_levels", TORCH_FN(mrb::fpn_levels));
  m.impl("fpn_roi_align", TORCH_FN(mrb::fpn_roi_align<mrb::roi_align_cuda>));
  m.impl("fpn_roi_align_backward", TORCH_FN(mrb::fpn_roi_align_backward<mrb::roi_align_backward_cuda>));
}
