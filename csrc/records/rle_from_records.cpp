// Run-length encoded masks of annotation records.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "../masks/mask_texts.h"
#include "record_masks.h"

namespace mrb {
namespace {

// Also which records have a mask that can be used; the text of others is empty.
std::tuple<at::Tensor, at::Tensor, at::Tensor> rle_from_records(const at::Tensor& records,
                                                                const at::Tensor& spans,
                                                                const at::Tensor& sizes) {
  const char* op = "rle_from_records";
  check_shape(op, "spans", spans, {-1, 2}, "(G, 2)");
  const int64_t count = spans.size(0);
  const RecordTable table = check_records(op, records, spans, sizes, count);
  std::vector<std::vector<uint8_t>> texts(count);
  std::vector<int64_t> mask_sizes(2 * count);
  at::Tensor usable = at::empty({count}, at::TensorOptions().dtype(at::kBool));
  bool* fine = usable.mutable_data_ptr<bool>();
  at::parallel_for(0, count, kMasksPerTask, [&](int64_t first, int64_t last) {
    RecordMask mask;
    for (int64_t i = first; i < last; ++i) {
      fine[i] = mask.read(table, i);
      mask_sizes[2 * i] = mask.height, mask_sizes[2 * i + 1] = mask.width;
      if (fine[i]) encode_runs(mask.runs, mask.height * mask.width, texts[i]);
    }
  });
  const auto [text, rows] = join_masks(texts, mask_sizes.data());
  return {text, rows, usable};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("rle_from_records", TORCH_FN(mrb::rle_from_records));
}
