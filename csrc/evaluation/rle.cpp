// Areas and boxes of run-length encoded masks.
#include "rle.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

namespace mrb {
namespace {

constexpr int64_t kMasksPerTask = 256;

std::tuple<at::Tensor, at::Tensor, at::Tensor> rle_measure(const at::Tensor& text, const at::Tensor& table) {
  const RleTable masks = check_rle("rle_measure", "table", text, table);
  const int64_t count = table.size(0);
  at::Tensor areas = at::empty({count}, at::TensorOptions().dtype(at::kLong));
  at::Tensor boxes = at::empty({count, 4}, at::TensorOptions().dtype(at::kLong));
  at::Tensor problems = at::empty({count}, at::TensorOptions().dtype(at::kByte));
  int64_t *area = areas.mutable_data_ptr<int64_t>(), *box = boxes.mutable_data_ptr<int64_t>();
  uint8_t* problem = problems.mutable_data_ptr<uint8_t>();
  at::parallel_for(0, count, kMasksPerTask, [&](int64_t first, int64_t last) {
    Runs runs;
    for (int64_t i = first; i < last; ++i) {
      problem[i] = runs.decode(masks[i]);
      if (problem[i] != kRleValid) runs.bounds.clear(), runs.area = 0;
      area[i] = runs.area;
      runs.tight_box(masks[i].height, box + 4 * i);
    }
  });
  return {areas, boxes, problems};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) { m.impl("rle_measure", TORCH_FN(mrb::rle_measure)); }
