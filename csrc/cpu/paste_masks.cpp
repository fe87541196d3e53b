// Mask pasting on the CPU. Per instance, each source row is stretched to the image's columns once; every
// image row then blends two stretched rows and compares with the threshold, all along contiguous memory.
#include "../paste_masks.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <vector>

#include "../multiversion.h"

namespace mrb {
namespace {

// Image columns of one instance: source cells and shares, and the two stretched rows in use.
struct Stretch {
  std::vector<int32_t> low, high;
  std::vector<float> share;
  std::vector<float> first, second;
  int64_t first_row, second_row;

  void prepare(const PasteSpan& span, int64_t source) {
    const int64_t width = span.high - span.low;
    low.resize(width);
    high.resize(width);
    share.resize(width);
    first.resize(width);
    second.resize(width);
    first_row = second_row = -1;
    for (int64_t i = 0; i < width; ++i) {
      const ResizeTap tap(span.low + i - span.start, source, span.size);
      low[i] = static_cast<int32_t>(tap.low);
      high[i] = static_cast<int32_t>(tap.high);
      share[i] = tap.share;
    }
  }
};

MRB_MULTIVERSION void stretch_row(const float* MRB_RESTRICT source, const Stretch& columns,
                                  float* MRB_RESTRICT out) {
  const int32_t* MRB_RESTRICT low = columns.low.data();
  const int32_t* MRB_RESTRICT high = columns.high.data();
  const float* MRB_RESTRICT share = columns.share.data();
  const int64_t width = static_cast<int64_t>(columns.low.size());
  for (int64_t i = 0; i < width; ++i)
    out[i] = (1.0f - share[i]) * source[low[i]] + share[i] * source[high[i]];
}

MRB_MULTIVERSION void blend_rows(const float* MRB_RESTRICT first, const float* MRB_RESTRICT second,
                                 float share, float threshold, int64_t width, uint8_t* MRB_RESTRICT out) {
  const float rest = 1.0f - share;
  for (int64_t i = 0; i < width; ++i) out[i] = rest * first[i] + share * second[i] > threshold;
}

// Brings source rows `low` and `high` into first and second; rows only move down, so one of them is often
// there.
void load_rows(Stretch& s, const float* mask, int64_t side, int64_t low, int64_t high) {
  if (s.first_row != low) {
    if (s.second_row == low) {
      std::swap(s.first, s.second);
      std::swap(s.first_row, s.second_row);
    } else {
      stretch_row(mask + low * side, s, s.first.data());
      s.first_row = low;
    }
  }
  if (s.second_row != high) {
    stretch_row(mask + high * side, s, s.second.data());
    s.second_row = high;
  }
}

void paste_one(const float* mask, int64_t side, const float* box, int64_t padding, int64_t height,
               int64_t width, float threshold, Stretch& stretch, std::vector<float>& padded,
               uint8_t* image) {
  const int64_t source = side + 2 * padding;
  const float scale = static_cast<float>(static_cast<double>(source) / static_cast<double>(side));
  const PasteSpan x = paste_span(box[0], box[2], scale, width);
  const PasteSpan y = paste_span(box[1], box[3], scale, height);
  if (x.low >= x.high || y.low >= y.high) return;
  padded.assign(source * source, 0.0f);
  for (int64_t r = 0; r < side; ++r) {
    std::copy(mask + r * side, mask + (r + 1) * side, padded.data() + (r + padding) * source + padding);
  }
  stretch.prepare(x, source);
  for (int64_t row = y.low; row < y.high; ++row) {
    const ResizeTap tap(row - y.start, source, y.size);
    load_rows(stretch, padded.data(), source, tap.low, tap.high);
    blend_rows(stretch.first.data(), stretch.second.data(), tap.share, threshold, x.high - x.low,
               image + row * width + x.low);
  }
}

at::Tensor paste_masks(const at::Tensor& masks, const at::Tensor& boxes, int64_t height, int64_t width,
                       double threshold, int64_t padding) {
  check_paste_masks(masks, boxes, height, width, threshold, padding);
  const int64_t count = masks.size(0), side = masks.size(1);
  at::Tensor result = at::zeros({count, height, width}, masks.options().dtype(at::kBool));
  const at::Tensor source = masks.to(at::kFloat).contiguous();
  const at::Tensor places = boxes.to(at::kFloat).contiguous();
  const float* mask = source.const_data_ptr<float>();
  const float* box = places.const_data_ptr<float>();
  uint8_t* out = reinterpret_cast<uint8_t*>(result.mutable_data_ptr<bool>());
  at::parallel_for(0, count, 1, [&](int64_t first, int64_t last) {
    Stretch stretch;
    std::vector<float> padded;
    for (int64_t n = first; n < last; ++n) {
      paste_one(mask + n * side * side, side, box + 4 * n, padding, height, width,
                static_cast<float>(threshold), stretch, padded, out + n * height * width);
    }
  });
  return result;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) { m.impl("paste_masks", TORCH_FN(mrb::paste_masks)); }
