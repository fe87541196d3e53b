// Areas and boxes of run-length encoded masks, and masks of polygons as pycocotools rasterises them.
#include "rle.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>

#include "../rasterize_polygons.h"
#include "pairs.h"

namespace mrb {
namespace {

constexpr int64_t kMasksPerTask = 256;
constexpr int64_t kMaxImageSide = 1 << 20;  // bounds the crossings of an edge

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

using Interval = std::pair<int64_t, int64_t>;

// Pixel ranges of one polygon in column-major order; crossings at one pixel cancel in pairs.
void polygon_intervals(const double* points, int64_t count, int64_t height, int64_t width,
                       std::vector<int64_t>& toggles, std::vector<Interval>& intervals) {
  toggles.clear();
  const auto emit = [&](int64_t column, int64_t row) { toggles.push_back(column * height + row); };
  int64_t x = fine_coordinate(points[2 * count - 2]), y = fine_coordinate(points[2 * count - 1]);
  for (int64_t p = 0; p < count; ++p) {
    const int64_t next_x = fine_coordinate(points[2 * p]), next_y = fine_coordinate(points[2 * p + 1]);
    edge_crossings(x, y, next_x, next_y, width, height, emit);
    x = next_x, y = next_y;
  }
  std::sort(toggles.begin(), toggles.end());
  int64_t begin = -1;
  for (size_t i = 0; i < toggles.size(); ++i) {
    if (i + 1 < toggles.size() && toggles[i] == toggles[i + 1]) {
      ++i;
    } else if (begin < 0) {
      begin = toggles[i];
    } else {
      intervals.emplace_back(begin, toggles[i]);
      begin = -1;
    }
  }
  if (begin >= 0 && begin < height * width) intervals.emplace_back(begin, height * width);
}

// The union of `intervals` as compressed text.
void encode(std::vector<Interval>& intervals, int64_t pixels, std::vector<uint8_t>& text) {
  std::sort(intervals.begin(), intervals.end());
  int64_t count = 0, before_last = 0, last = 0;
  const auto append = [&](int64_t run) {
    append_rle_length(count > 2 ? run - before_last : run, text);
    before_last = last, last = run, ++count;
  };
  int64_t position = 0;
  for (size_t i = 0; i < intervals.size();) {
    const int64_t begin = intervals[i].first;
    int64_t end = intervals[i].second;
    for (++i; i < intervals.size() && intervals[i].first <= end; ++i)
      end = std::max(end, intervals[i].second);
    append(begin - position);
    append(end - begin);
    position = end;
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
  const int64_t* polygons = check_starts(op, "polygon_offsets", polygon_offsets, coords.size(0));
  const int64_t* first_polygon =
      check_starts(op, "instance_offsets", instance_offsets, polygon_offsets.size(0) - 1);
  TORCH_CHECK_VALUE(instance_offsets.size(0) == instances + 1, op, ": instance_offsets must hold ",
                    instances + 1, " values, one more than sizes, got ", instance_offsets.size(0));
  const int64_t* size = size_tensor.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < instances; ++i) {
    const int64_t h = size[2 * i], w = size[2 * i + 1];
    TORCH_CHECK_VALUE(h > 0 && w > 0 && h <= kMaxImageSide && w <= kMaxImageSide && h * w <= kMaxMaskPixels,
                      op, ": sizes[", i, "] must be from 1 to ", kMaxImageSide, " and hold at most ",
                      kMaxMaskPixels, " pixels, got ", h, " x ", w);
  }
  const double* points = point_tensor.const_data_ptr<double>();
  std::vector<std::vector<uint8_t>> texts(instances);
  at::parallel_for(0, instances, kMasksPerTask, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> toggles;
    std::vector<Interval> intervals;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t h = size[2 * i], w = size[2 * i + 1];
      intervals.clear();
      for (int64_t k = first_polygon[i]; k < first_polygon[i + 1]; ++k) {
        const int64_t count = polygons[k + 1] - polygons[k];
        if (count > 0) polygon_intervals(points + 2 * polygons[k], count, h, w, toggles, intervals);
      }
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
  m.impl("rle_measure", TORCH_FN(mrb::rle_measure));
  m.impl("rle_from_polygons", TORCH_FN(mrb::rle_from_polygons));
}
