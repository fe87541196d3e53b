// Many masks as one compressed text and its table.
#pragma once

#include <ATen/ops/empty.h>

#include <tuple>
#include <vector>

#include "../evaluation/rle.h"

namespace mrb {

constexpr int64_t kMasksPerTask = 256;

// The runs of a mask of so many pixels as compressed text.
inline void encode_runs(const Runs& runs, int64_t pixels, std::vector<uint8_t>& text) {
  int64_t count = 0, before_last = 0, last = 0, position = 0;
  const auto append = [&](int64_t run) {
    append_rle_length(count > 2 ? run - before_last : run, text);
    before_last = last, last = run, ++count;
  };
  for (const uint32_t bound : runs.bounds) {
    append(bound - position);
    position = bound;
  }
  if (position < pixels) append(pixels - position);
}

// The texts of masks end to end, and the table; size (N, 2): height and width of each.
inline std::tuple<at::Tensor, at::Tensor> join_masks(const std::vector<std::vector<uint8_t>>& texts,
                                                     const int64_t* size) {
  const int64_t instances = texts.size();
  int64_t bytes = 0;
  for (const auto& text : texts) bytes += text.size();
  at::Tensor text = at::empty({bytes}, at::TensorOptions().dtype(at::kByte));
  at::Tensor table = at::empty({instances, 4}, at::TensorOptions().dtype(at::kLong));
  uint8_t* out = text.mutable_data_ptr<uint8_t>();
  int64_t* row = table.mutable_data_ptr<int64_t>();
  int64_t begin = 0;
  for (int64_t i = 0; i < instances; ++i, row += 4) {
    const int64_t length = texts[i].size();
    std::copy(texts[i].begin(), texts[i].end(), out + begin);
    row[0] = begin, row[1] = length, row[2] = size[2 * i], row[3] = size[2 * i + 1];
    begin += length;
  }
  return {text, table};
}

}  // namespace mrb
