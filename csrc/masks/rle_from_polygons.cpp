// Run-length encoded masks of polygons, as pycocotools rasterises them. Memory is bounded by the image, not
// by the length of an outline; an outline that no drawing has (kMaxCrossings) is refused.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "../evaluation/pairs.h"
#include "../evaluation/rle.h"
#include "../rasterize_polygons.h"

namespace mrb {
namespace {

constexpr int64_t kMasksPerTask = 256;
constexpr int64_t kMaxImageSide = 1 << 20;           // bounds the crossings of an edge
constexpr int64_t kMaxCrossings = int64_t{1} << 28;  // of the outlines of one mask with columns: seconds
constexpr size_t kFew = 4096;

using Interval = std::pair<uint32_t, uint32_t>;  // begin and end, which are at most kMaxMaskPixels

// Where the inside of a polygon begins and ends in column-major order; crossings at one pixel cancel in
// pairs. A list while they are few, then one bit per pixel.
class Toggles {
 public:
  void start(int64_t pixels) {
    pixels_ = pixels;
    limit_ = std::max(kFew, static_cast<size_t>(pixels / 64));
    list_.clear();
    bits_.clear();
  }

  void add(int64_t pixel) {
    if (bits_.empty() && list_.size() == limit_) {
      bits_.assign(pixels_ / 64 + 1, 0);
      for (uint32_t one : list_) flip(one);
      list_.clear();
    }
    if (bits_.empty()) {
      list_.push_back(static_cast<uint32_t>(pixel));
    } else {
      flip(pixel);
    }
  }

  void finish(std::vector<Interval>& intervals) {
    begin_ = -1;
    std::sort(list_.begin(), list_.end());
    for (size_t i = 0; i < list_.size(); ++i) {
      if (i + 1 < list_.size() && list_[i] == list_[i + 1]) {
        ++i;
      } else {
        pass(list_[i], intervals);
      }
    }
    for (size_t word = 0; word < bits_.size(); ++word) {
      for (uint64_t rest = bits_[word]; rest != 0; rest &= rest - 1) {
        pass(static_cast<int64_t>(word) * 64 + __builtin_ctzll(rest), intervals);
      }
    }
    if (begin_ >= 0 && begin_ < pixels_) pass(pixels_, intervals);
  }

 private:
  void flip(int64_t pixel) { bits_[pixel / 64] ^= uint64_t{1} << (pixel % 64); }

  void pass(int64_t pixel, std::vector<Interval>& intervals) {
    if (begin_ < 0) {
      begin_ = pixel;
    } else {
      intervals.emplace_back(static_cast<uint32_t>(begin_), static_cast<uint32_t>(pixel));
      begin_ = -1;
    }
  }

  int64_t pixels_ = 0, begin_ = -1;
  size_t limit_ = 0;
  std::vector<uint32_t> list_;
  std::vector<uint64_t> bits_;
};

// Sorts intervals and joins those that meet.
void unite(std::vector<Interval>& intervals) {
  std::sort(intervals.begin(), intervals.end());
  size_t kept = 0;
  for (const Interval& next : intervals) {
    if (kept > 0 && next.first <= intervals[kept - 1].second) {
      intervals[kept - 1].second = std::max(intervals[kept - 1].second, next.second);
    } else {
      intervals[kept++] = next;
    }
  }
  intervals.resize(kept);
}

struct Polygons {
  const double* points;
  const int64_t* polygon_start;
  const int64_t* first_polygon;
};

// The union of the polygons of mask `index`; false where its outlines cross too many columns.
bool rasterize(const Polygons& polygons, int64_t index, int64_t height, int64_t width, Toggles& toggles,
               std::vector<Interval>& intervals) {
  intervals.clear();
  int64_t crossings = 0;
  size_t united = 0;
  const auto emit = [&](int64_t column, int64_t row) {
    ++crossings;
    toggles.add(column * height + row);
  };
  for (int64_t k = polygons.first_polygon[index]; k < polygons.first_polygon[index + 1]; ++k) {
    const int64_t count = polygons.polygon_start[k + 1] - polygons.polygon_start[k];
    if (count < 3) continue;  // encloses nothing
    const double* point = polygons.points + 2 * polygons.polygon_start[k];
    toggles.start(height * width);
    int64_t x = fine_coordinate(point[2 * count - 2]), y = fine_coordinate(point[2 * count - 1]);
    for (int64_t p = 0; p < count; ++p) {
      const int64_t next_x = fine_coordinate(point[2 * p]), next_y = fine_coordinate(point[2 * p + 1]);
      edge_crossings(x, y, next_x, next_y, width, height, emit);
      if (crossings > kMaxCrossings) return false;
      x = next_x, y = next_y;
    }
    toggles.finish(intervals);
    if (intervals.size() > 2 * united + kFew) {
      unite(intervals);
      united = intervals.size();
    }
  }
  unite(intervals);
  return true;
}

// Disjoint ascending intervals as compressed text.
void encode(const std::vector<Interval>& intervals, int64_t pixels, std::vector<uint8_t>& text) {
  int64_t count = 0, before_last = 0, last = 0, position = 0;
  const auto append = [&](int64_t run) {
    append_rle_length(count > 2 ? run - before_last : run, text);
    before_last = last, last = run, ++count;
  };
  for (const Interval& interval : intervals) {
    append(interval.first - position);
    append(int64_t{interval.second} - interval.first);
    position = interval.second;
  }
  if (position < pixels) append(pixels - position);
}

std::tuple<at::Tensor, at::Tensor> rle_from_polygons(const at::Tensor& coords,
                                                     const at::Tensor& polygon_offsets,
                                                     const at::Tensor& instance_offsets,
                                                     const at::Tensor& sizes) {
  const char* op = "rle_from_polygons";
  check_shape(op, "coords", coords, {-1, 2}, "(P, 2)");
  check_dtype(op, "coords", coords, at::kDouble);
  check_shape(op, "sizes", sizes, {-1, 2}, "(I, 2)");
  check_dtype(op, "sizes", sizes, at::kLong);
  const at::Tensor point_tensor = coords.contiguous(), size_tensor = sizes.contiguous();
  const int64_t instances = sizes.size(0);
  const Polygons polygons{
      point_tensor.const_data_ptr<double>(),
      check_starts(op, "polygon_offsets", polygon_offsets, coords.size(0)),
      check_starts(op, "instance_offsets", instance_offsets, polygon_offsets.size(0) - 1),
  };
  TORCH_CHECK_VALUE(instance_offsets.size(0) == instances + 1, op, ": instance_offsets must hold ",
                    instances + 1, " values, one more than sizes, got ", instance_offsets.size(0));
  const int64_t* size = size_tensor.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < instances; ++i) {
    const int64_t h = size[2 * i], w = size[2 * i + 1];
    TORCH_CHECK_VALUE(h > 0 && w > 0 && h <= kMaxImageSide && w <= kMaxImageSide && h * w <= kMaxMaskPixels,
                      op, ": sizes[", i, "] must be from 1 to ", kMaxImageSide, " and hold at most ",
                      kMaxMaskPixels, " pixels, got ", h, " x ", w);
  }
  std::vector<std::vector<uint8_t>> texts(instances);
  at::parallel_for(0, instances, kMasksPerTask, [&](int64_t begin, int64_t end) {
    Toggles toggles;
    std::vector<Interval> intervals;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t h = size[2 * i], w = size[2 * i + 1];
      TORCH_CHECK_VALUE(rasterize(polygons, i, h, w, toggles, intervals), op, ": the outlines of mask ", i,
                        " cross the columns of its image more than ", kMaxCrossings, " times");
      encode(intervals, h * w, texts[i]);
    }
  });
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

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("rle_from_polygons", TORCH_FN(mrb::rle_from_polygons));
}
