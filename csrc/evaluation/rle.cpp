// Areas and boxes of run-length encoded masks.
#include "rle.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>

namespace mrb {
namespace {

constexpr int64_t kMasksPerTask = 256;

// x, y, width, height in whole pixels; all 0 for an empty mask.
void tight_box(const Runs& runs, int64_t height, int64_t* box) {
  std::fill(box, box + 4, 0);
  if (runs.area == 0) return;
  const int64_t left = runs.bounds.front() / height, right = (runs.bounds.back() - 1) / height;
  int64_t top = height, bottom = -1;
  for (size_t i = 0; i < runs.bounds.size(); i += 2) {
    const int64_t first = runs.bounds[i], last = int64_t{runs.bounds[i + 1]} - 1;
    const bool one_column = first / height == last / height;
    top = std::min(top, one_column ? first % height : 0);
    bottom = std::max(bottom, one_column ? last % height : height - 1);
  }
  box[0] = left, box[1] = top, box[2] = right - left + 1, box[3] = bottom - top + 1;
}

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
      tight_box(runs, masks[i].height, box + 4 * i);
    }
  });
  return {areas, boxes, problems};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) { m.impl("rle_measure", TORCH_FN(mrb::rle_measure)); }
