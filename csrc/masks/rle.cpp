// Run-length encoded masks from lists of runs and into bitmaps.
#include "../evaluation/rle.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "../evaluation/pairs.h"

namespace mrb {
namespace {

constexpr int64_t kMaxRun = int64_t{1} << 40;  // a difference of two is a number that the format can hold
constexpr int64_t kMaxSum = int64_t{1} << 62;

std::tuple<at::Tensor, at::Tensor> rle_from_runs(const at::Tensor& runs, const at::Tensor& offsets,
                                                 const at::Tensor& sizes) {
  const char* op = "rle_from_runs";
  check_shape(op, "runs", runs, {-1}, "(K,)");
  check_dtype(op, "runs", runs, at::kLong);
  check_shape(op, "sizes", sizes, {-1, 2}, "(I, 2)");
  check_dtype(op, "sizes", sizes, at::kLong);
  const int64_t* start = check_starts(op, "offsets", offsets, runs.size(0));
  const int64_t masks = sizes.size(0);
  TORCH_CHECK_VALUE(offsets.size(0) == masks + 1, op, ": offsets must hold ", masks + 1,
                    " values, one more than sizes, got ", offsets.size(0));
  const at::Tensor run_tensor = runs.contiguous(), size_tensor = sizes.contiguous();
  const int64_t *run = run_tensor.const_data_ptr<int64_t>(), *size = size_tensor.const_data_ptr<int64_t>();
  std::vector<uint8_t> bytes;
  at::Tensor table = at::empty({masks, 4}, at::TensorOptions().dtype(at::kLong));
  int64_t* row = table.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < masks; ++i, row += 4) {
    row[0] = bytes.size(), row[2] = size[2 * i], row[3] = size[2 * i + 1];
    for (int64_t k = start[i]; k < start[i + 1]; ++k) {
      TORCH_CHECK_VALUE(run[k] >= 0 && run[k] <= kMaxRun, op, ": runs[", k, "] must be from 0 to ", kMaxRun,
                        ", got ", run[k]);
      append_rle_length(k - start[i] > 2 ? run[k] - run[k - 2] : run[k], bytes);
    }
    row[1] = static_cast<int64_t>(bytes.size()) - row[0];
  }
  at::Tensor text = at::empty({static_cast<int64_t>(bytes.size())}, at::TensorOptions().dtype(at::kByte));
  std::copy(bytes.begin(), bytes.end(), text.mutable_data_ptr<uint8_t>());
  return {text, table};
}

// Nothing is allocated before every text is known to describe a mask of this size.
at::Tensor rle_decode(const at::Tensor& text, const at::Tensor& table, int64_t height, int64_t width) {
  const char* op = "rle_decode";
  const RleTable masks = check_rle(op, "table", text, table);
  check_range(op, "height", height, 0, kMaxMaskPixels);
  check_range(op, "width", width, 0, height == 0 ? kMaxMaskPixels : kMaxMaskPixels / height);
  const int64_t count = table.size(0);
  std::vector<Runs> runs(count);
  for (int64_t i = 0; i < count; ++i) {
    const RleText mask = masks[i];
    TORCH_CHECK_VALUE(mask.height == height && mask.width == width, op, ": mask ", i, " must be ", height,
                      " x ", width, ", got ", mask.height, " x ", mask.width);
    const int problem = runs[i].decode(mask);
    TORCH_CHECK_VALUE(problem == kRleValid, op, ": the text of mask ", i, " describes none (problem ",
                      problem, ")");
  }
  at::Tensor bitmaps = at::zeros({count, width, height}, at::TensorOptions().dtype(at::kBool));
  bool* out = bitmaps.mutable_data_ptr<bool>();
  for (int64_t i = 0; i < count; ++i, out += height * width) {
    const std::vector<uint32_t>& bounds = runs[i].bounds;
    for (size_t r = 0; r < bounds.size(); r += 2) std::fill(out + bounds[r], out + bounds[r + 1], true);
  }
  return bitmaps;
}

at::Tensor rle_sums(const at::Tensor& text, const at::Tensor& table) {
  const RleTable masks = check_rle("rle_sums", "table", text, table);
  at::Tensor sums = at::empty({table.size(0)}, at::TensorOptions().dtype(at::kLong));
  int64_t* sum = sums.mutable_data_ptr<int64_t>();
  for (int64_t m = 0; m < table.size(0); ++m) {
    const RleText mask = masks[m];
    int64_t before_last = 0, last = 0, total = 0;
    for (int64_t i = 0, count = 0; i < mask.length && total < kMaxSum; ++count) {
      int64_t value = 0;
      if (read_rle_number(mask, i, value) != kRleValid) break;
      if (count > 2) value += before_last;
      // Both stay within 2^62, and their sum within 64 bits.
      value = std::clamp(value, -kMaxSum, kMaxSum);
      before_last = last, last = value;
      total = std::clamp(total + value, -kMaxSum, kMaxSum);
    }
    sum[m] = total;
  }
  return sums;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("rle_from_runs", TORCH_FN(mrb::rle_from_runs));
  m.impl("rle_decode", TORCH_FN(mrb::rle_decode));
  m.impl("rle_sums", TORCH_FN(mrb::rle_sums));
}
