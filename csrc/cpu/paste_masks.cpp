// Mask pasting on the CPU, instance by instance, row by row (resize_rows.h).
#include "../paste_masks.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <vector>

#include "resize_rows.h"

namespace mrb {
namespace {

void paste_one(const float* mask, int64_t side, const float* box, int64_t padding, int64_t height,
               int64_t width, float threshold, ResizeTaps& columns, ResizedRows& rows,
               std::vector<float>& padded, uint8_t* image) {
  const int64_t source = side + 2 * padding;
  const float scale = static_cast<float>(static_cast<double>(source) / static_cast<double>(side));
  const PasteSpan x = paste_span(box[0], box[2], scale, width);
  const PasteSpan y = paste_span(box[1], box[3], scale, height);
  if (x.low >= x.high || y.low >= y.high) return;
  padded.assign(source * source, 0.0f);
  for (int64_t r = 0; r < side; ++r) {
    std::copy(mask + r * side, mask + (r + 1) * side, padded.data() + (r + padding) * source + padding);
  }
  const int64_t count = x.high - x.low;
  columns.fill(source, resize_step(source, x.size), x.low - x.start, x.high - x.start);
  rows.reset(count);
  const auto compute = [&](int64_t row, float* out) {
    resize_row(padded.data() + row * source, columns.low.data(), columns.high.data(), columns.weight.data(),
               count, out);
  };
  const float step = resize_step(source, y.size);
  for (int64_t row = y.low; row < y.high; ++row) {
    const BilinearTap<float> tap = resize_tap(row - y.start, source, step);
    rows.load(tap.low, tap.high, compute);
    blend_rows(rows.above.data(), rows.below.data(), tap.weight, threshold, count,
               image + row * width + x.low);
  }
}

at::Tensor paste_masks(const at::Tensor& masks, const at::Tensor& boxes, int64_t height, int64_t width,
                       double threshold, int64_t padding) {
  check_paste_masks(masks, boxes, height, width, threshold, padding);
  const int64_t count = masks.size(0), side = masks.size(1);
  at::Tensor result = at::zeros({count, height, width}, masks.options().dtype(at::kBool));
  const at::Tensor source = masks.to(at::kFloat).contiguous();
  const at::Tensor box_rows = boxes.to(at::kFloat).contiguous();
  const float* mask = source.const_data_ptr<float>();
  const float* box = box_rows.const_data_ptr<float>();
  uint8_t* out = reinterpret_cast<uint8_t*>(result.mutable_data_ptr<bool>());
  at::parallel_for(0, count, 1, [&](int64_t first, int64_t last) {
    ResizeTaps columns;
    ResizedRows rows;
    std::vector<float> padded;
    for (int64_t n = first; n < last; ++n) {
      paste_one(mask + n * side * side, side, box + 4 * n, padding, height, width,
                static_cast<float>(threshold), columns, rows, padded, out + n * height * width);
    }
  });
  return result;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) { m.impl("paste_masks", TORCH_FN(mrb::paste_masks)); }
