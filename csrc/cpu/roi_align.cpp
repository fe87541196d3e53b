// ROIAlign of one map on the CPU: the kernels of fpn_roi_align.cpp with a single level.
#include <torch/library.h>

#include "../fpn_roi_align.h"

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("roi_align", TORCH_FN(mrb::roi_align<mrb::pool_cpu>));
  m.impl("roi_align_backward", TORCH_FN(mrb::roi_align_backward<mrb::spread_cpu>));
}
