// ROIAlign of one map on CUDA: the kernels of fpn_roi_align.cu with a single level.
#include <torch/library.h>

#include "../fpn_roi_align.h"

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("roi_align", TORCH_FN(mrb::roi_align<mrb::pool_cuda>));
  m.impl("roi_align_backward", TORCH_FN(mrb::roi_align_backward<mrb::spread_cuda>));
}
