// Greedy NMS on the CPU.
//
// Boxes are stored in descending score order, one array per coordinate. Blocks of them are decided in order;
// the boxes that a block keeps then drop later ones, eight or sixteen at a time and by several threads, each
// with its range of boxes. Dropped boxes are removed from the arrays when a third is dropped, so that crowded
// inputs get shorter on the way.
#include "../nms.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

namespace mrb {
namespace {

constexpr int64_t kBlock = 64;
constexpr int64_t kTile = 1024;
// Pairs of boxes per thread and block below which waking threads costs more than it saves, most of all on a
// busy processor.
constexpr int64_t kPairsPerThread = 1 << 20;

struct Boxes {
  float* x1;
  float* y1;
  float* x2;
  float* y2;
  float* area;
  int32_t* dropped;
  int64_t* source;  // row of the caller's boxes

  void move(int64_t from, int64_t to) const {
    x1[to] = x1[from];
    y1[to] = y1[from];
    x2[to] = x2[from];
    y2[to] = y2[from];
    area[to] = area[from];
    dropped[to] = dropped[from];
    source[to] = source[from];
  }
};

// Marks the boxes [begin, end) whose IoU with box i is above the threshold.
MRB_MULTIVERSION void drop_overlapping(const Boxes& all, int64_t i, int64_t begin, int64_t end,
                                       float threshold) {
  const float* MRB_RESTRICT x1 = all.x1;
  const float* MRB_RESTRICT y1 = all.y1;
  const float* MRB_RESTRICT x2 = all.x2;
  const float* MRB_RESTRICT y2 = all.y2;
  const float* MRB_RESTRICT area = all.area;
  int32_t* MRB_RESTRICT dropped = all.dropped;
  const float ix1 = x1[i], iy1 = y1[i], ix2 = x2[i], iy2 = y2[i], iarea = area[i];
  for (int64_t j = begin; j < end; ++j) {
    const float intersection =
        intersection_side(ix1, ix2, x1[j], x2[j]) * intersection_side(iy1, iy2, y1[j], y2[j]);
    dropped[j] |= iou_above(intersection, iarea, area[j], threshold);
  }
}

// Moves the remaining boxes of [begin, end) to the front when a third of them is dropped; returns the new
// end.
int64_t compact(const Boxes& boxes, int64_t begin, int64_t end) {
  int64_t dropped = 0;
  for (int64_t j = begin; j < end; ++j) dropped += boxes.dropped[j];
  if (dropped * 3 < end - begin) return end;
  int64_t out = begin;
  for (int64_t j = begin; j < end; ++j) {
    if (!boxes.dropped[j]) boxes.move(j, out++);
  }
  return out;
}

// Greedy NMS of the boxes [begin, end), all of one class; sets keep[source] for the kept ones.
void nms_range(const Boxes& boxes, int64_t begin, int64_t end, float threshold, uint8_t* keep) {
  int64_t kept[kBlock];
  while (begin < end) {
    const int64_t block_end = std::min(begin + kBlock, end);
    int64_t count = 0;
    for (int64_t i = begin; i < block_end; ++i) {
      if (boxes.dropped[i]) continue;
      kept[count++] = i;
      keep[boxes.source[i]] = 1;
      drop_overlapping(boxes, i, i + 1, block_end, threshold);
    }
    at::parallel_for(block_end, end, kPairsPerThread / std::max<int64_t>(count, 1),
                     [&](int64_t from, int64_t to) {
                       for (int64_t tile = from; tile < to; tile += kTile) {
                         for (int64_t k = 0; k < count; ++k)
                           drop_overlapping(boxes, kept[k], tile, std::min(tile + kTile, to), threshold);
                       }
                     });
    begin = block_end;
    end = compact(boxes, begin, end);
  }
}

at::Tensor indices_of(const std::vector<uint8_t>& keep) {
  const int64_t total = std::count(keep.begin(), keep.end(), 1);
  at::Tensor result = at::empty({total}, at::kLong);
  int64_t* out = result.mutable_data_ptr<int64_t>();
  for (size_t i = 0; i < keep.size(); ++i) {
    if (keep[i]) *out++ = static_cast<int64_t>(i);
  }
  return result;
}

// `order`: rows by class, then descending score; `starts`: where each class begins, and the number of rows.
at::Tensor run_nms(const at::Tensor& boxes, const at::Tensor& order, const std::vector<int64_t>& starts,
                   float threshold) {
  const int64_t n = boxes.size(0);
  const at::Tensor rows = boxes.to(at::kFloat).contiguous();
  const float* data = rows.const_data_ptr<float>();
  const int64_t* source = order.const_data_ptr<int64_t>();
  std::vector<float> values(5 * n);
  std::vector<int32_t> dropped(n, 0);
  std::vector<int64_t> index(source, source + n);
  float* base = values.data();
  const Boxes sorted{base, base + n, base + 2 * n, base + 3 * n, base + 4 * n, dropped.data(), index.data()};
  for (int64_t i = 0; i < n; ++i) {
    const float* box = data + 4 * index[i];
    sorted.x1[i] = box[0];
    sorted.y1[i] = box[1];
    sorted.x2[i] = box[2];
    sorted.y2[i] = box[3];
    sorted.area[i] = box_area(box[0], box[1], box[2], box[3]);
  }
  std::vector<uint8_t> keep(n, 0);
  const int64_t classes = static_cast<int64_t>(starts.size()) - 1;
  const auto decide = [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c)
      nms_range(sorted, starts[c], starts[c + 1], threshold, keep.data());
  };
  // Threads share the classes, or the boxes of the only class (a nested parallel loop would run on one
  // thread).
  if (classes == 1) {
    decide(0, 1);
  } else {
    at::parallel_for(0, classes, 1, decide);
  }
  return indices_of(keep);
}

at::Tensor by_descending_score(const at::Tensor& scores) {
  return std::get<1>(at::sort(scores, /*stable=*/true, /*dim=*/0, /*descending=*/true)).contiguous();
}

at::Tensor nms(const at::Tensor& boxes, const at::Tensor& scores, double iou_threshold) {
  check_nms("nms", boxes, scores, iou_threshold);
  if (boxes.size(0) == 0) return at::empty({0}, at::kLong);
  return run_nms(boxes, by_descending_score(scores), {0, boxes.size(0)}, static_cast<float>(iou_threshold));
}

at::Tensor batched_nms(const at::Tensor& boxes, const at::Tensor& scores, const at::Tensor& labels,
                       double iou_threshold) {
  check_nms("batched_nms", boxes, scores, iou_threshold);
  check_labels("batched_nms", boxes, labels);
  const int64_t n = boxes.size(0);
  if (n == 0) return at::empty({0}, at::kLong);
  const at::Tensor by_score = by_descending_score(scores);
  const auto [sorted_labels, position] = at::sort(labels.to(at::kLong).index_select(0, by_score),
                                                  /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const at::Tensor order = by_score.index_select(0, position);
  const int64_t* label = sorted_labels.const_data_ptr<int64_t>();
  std::vector<int64_t> starts = {0};
  for (int64_t i = 1; i < n; ++i) {
    if (label[i] != label[i - 1]) starts.push_back(i);
  }
  starts.push_back(n);
  return run_nms(boxes, order, starts, static_cast<float>(iou_threshold));
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("nms", TORCH_FN(mrb::nms));
  m.impl("batched_nms", TORCH_FN(mrb::batched_nms));
}
