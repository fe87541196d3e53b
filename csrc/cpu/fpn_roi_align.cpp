// Level assignment and RoIAlign over an FPN on the CPU; the pooling kernels are those of roi_align.cpp.
#include "../fpn_roi_align.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

namespace mrb {
namespace {

at::Tensor fpn_levels(const at::Tensor& boxes, int64_t first_level, int64_t levels, int64_t canonical_level,
                      double canonical_size) {
  check_fpn_levels(boxes);
  const LevelRule rule = make_level_rule("fpn_levels", first_level, levels, canonical_level, canonical_size);
  const at::Tensor rows = boxes.to(at::kFloat).contiguous();
  at::Tensor result = at::empty({boxes.size(0)}, boxes.options().dtype(at::kInt));
  const float* box = rows.const_data_ptr<float>();
  int32_t* out = result.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i < boxes.size(0); ++i, box += 4) out[i] = rule(box[0], box[1], box[2], box[3]);
  return result;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("fpn_levels", TORCH_FN(mrb::fpn_levels));
  m.impl("fpn_roi_align", TORCH_FN(mrb::fpn_roi_align<mrb::roi_align_cpu>));
  m.impl("fpn_roi_align_backward", TORCH_FN(mrb::fpn_roi_align_backward<mrb::roi_align_backward_cpu>));
}
