// Run-length encoded masks in COCO's compressed text: lengths of alternating background and foreground runs
// in column-major order, from the third on as differences to the one before the last, each in groups of five
// bits, low ones first, with bit 5 for "more follow" and offset 48 to be printable.
//
// N masks are one buffer of text (uint8) and a table (N, 4) int64: begin, length, height, width.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../checks.h"

namespace mrb {

constexpr int64_t kMaxMaskPixels = UINT32_MAX;

enum RleProblem : uint8_t { kRleValid = 0, kRleSize, kRleCharacter, kRleTruncated, kRleNegative, kRleSum };

struct RleText {
  const uint8_t* text;
  int64_t length, height, width;
};

struct RleTable {
  const uint8_t* text;
  const int64_t* rows;

  RleText operator[](int64_t index) const {
    const int64_t* row = rows + 4 * index;
    return {text + row[0], row[1], row[2], row[3]};
  }
};

// Checks shapes, data types and that every row is inside the text; decode checks heights and widths.
inline RleTable check_rle(const char* op, const char* name, const at::Tensor& text, const at::Tensor& table) {
  check_shape(op, "text", text, {-1}, "(bytes,)");
  check_dtype(op, "text", text, at::kByte);
  check_shape(op, name, table, {-1, 4}, "(N, 4)");
  check_dtype(op, name, table, at::kLong);
  TORCH_CHECK_VALUE(text.is_contiguous() && table.is_contiguous(), op, ": ", name, " must be contiguous");
  const int64_t* row = table.const_data_ptr<int64_t>();
  const int64_t bytes = text.size(0);
  for (int64_t i = 0; i < table.size(0); ++i, row += 4) {
    TORCH_CHECK_VALUE(row[0] >= 0 && row[1] >= 0 && row[0] <= bytes && row[1] <= bytes - row[0], op, ": ",
                      name, " row ", i, " is outside the text");
  }
  return {text.const_data_ptr<uint8_t>(), table.const_data_ptr<int64_t>()};
}

// The number at text[i], a length or the difference to one, below 2^45; moves i behind it.
inline RleProblem read_rle_number(const RleText& rle, int64_t& i, int64_t& value) {
  value = 0;
  int shift = 0;
  for (bool more = true; more; shift += 5) {
    if (i == rle.length) return kRleTruncated;
    const int code = static_cast<int>(rle.text[i++]) - 48;
    if (code < 0 || code > 63 || shift > 40) return kRleCharacter;
    value |= static_cast<int64_t>(code & 31) << shift;
    more = (code & 32) != 0;
    if (!more && (code & 16)) value -= int64_t{32} << shift;
  }
  return kRleValid;
}

// Calls emit(begin, end) for every run of foreground that is not empty, in ascending order.
template <typename Emit>
RleProblem walk_runs(const RleText& rle, const Emit& emit) {
  if (rle.height < 0 || rle.width < 0 || rle.height > kMaxMaskPixels || rle.width > kMaxMaskPixels ||
      (rle.height > 0 && rle.width > kMaxMaskPixels / rle.height)) {
    return kRleSize;
  }
  const int64_t pixels = rle.height * rle.width;
  int64_t before_last = 0, last = 0, position = 0, count = 0;
  for (int64_t i = 0; i < rle.length; ++count) {
    int64_t value = 0;
    const RleProblem problem = read_rle_number(rle, i, value);
    if (problem != kRleValid) return problem;
    if (count > 2) value += before_last;
    before_last = last;
    last = value;
    if (value < 0) return kRleNegative;
    if (value > pixels - position) return kRleSum;
    if (count % 2 == 1 && value > 0) emit(position, position + value);
    position += value;
  }
  return position == pixels ? kRleValid : kRleSum;
}

// The number of foreground pixels.
inline RleProblem measure_rle(const RleText& rle, int64_t* area) {
  int64_t sum = 0;
  const RleProblem problem = walk_runs(rle, [&](int64_t begin, int64_t end) { sum += end - begin; });
  *area = sum;
  return problem;
}

// Foreground as half-open pixel ranges begin, end, begin, end, ... (ascending).
struct Runs {
  std::vector<uint32_t> bounds;
  int64_t area = 0;

  RleProblem decode(const RleText& rle) {
    bounds.clear();
    area = 0;
    return walk_runs(rle, [&](int64_t begin, int64_t end) {
      bounds.push_back(static_cast<uint32_t>(begin));
      bounds.push_back(static_cast<uint32_t>(end));
      area += end - begin;
    });
  }

  // x, y, width, height in whole pixels; all 0 for an empty mask.
  void tight_box(int64_t height, int64_t* box) const {
    std::fill(box, box + 4, 0);
    if (area == 0) return;
    const int64_t left = bounds.front() / height, right = (bounds.back() - 1) / height;
    int64_t top = height, bottom = -1;
    for (size_t i = 0; i < bounds.size(); i += 2) {
      const int64_t first = bounds[i], last = int64_t{bounds[i + 1]} - 1;
      const bool one_column = first / height == last / height;
      top = std::min(top, one_column ? first % height : 0);
      bottom = std::max(bottom, one_column ? last % height : height - 1);
    }
    box[0] = left, box[1] = top, box[2] = right - left + 1, box[3] = bottom - top + 1;
  }
};

// Area of the intersection of two masks of one size.
inline int64_t intersection_area(const Runs& a, const Runs& b) {
  const size_t na = a.bounds.size(), nb = b.bounds.size();
  if (na == 0 || nb == 0) return 0;
  if (a.bounds[na - 1] <= b.bounds[0] || b.bounds[nb - 1] <= a.bounds[0]) return 0;
  const uint32_t *pa = a.bounds.data(), *pb = b.bounds.data();
  const uint32_t *enda = pa + na, *endb = pb + nb;
  int64_t area = 0;
  while (pa < enda && pb < endb) {
    const uint32_t begin = pa[0] > pb[0] ? pa[0] : pb[0];
    const uint32_t end = pa[1] < pb[1] ? pa[1] : pb[1];
    if (begin < end) area += end - begin;
    const bool first = pa[1] < pb[1];
    pa += first ? 2 : 0;
    pb += first ? 0 : 2;
  }
  return area;
}

// Appends a length (already a difference where the format stores one).
inline void append_rle_length(int64_t value, std::vector<uint8_t>& text) {
  for (bool more = true; more;) {
    int64_t code = value & 31;
    value >>= 5;
    more = (code & 16) ? value != -1 : value != 0;
    if (more) code |= 32;
    text.push_back(static_cast<uint8_t>(code + 48));
  }
}

}  // namespace mrb
