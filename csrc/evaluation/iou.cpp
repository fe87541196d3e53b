// IoU of the detections and the ground truths of each (image, category) pair, as boxes or as run-length
// encoded masks. Equal to pycocotools to the bit: the same sums and quotients in float64.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <atomic>
#include <cmath>

#include "pairs.h"
#include "rle.h"

namespace mrb {
namespace {

constexpr int64_t kPairsPerTask = 64;

// x, y, width, height, without an inclusive + 1; a crowd counts against the detection's area alone.
double iou_of_boxes(const double* det, const double* gt, bool crowd) {
  const double w = std::fmin(det[2] + det[0], gt[2] + gt[0]) - std::fmax(det[0], gt[0]);
  if (w <= 0) return 0.0;
  const double h = std::fmin(det[3] + det[1], gt[3] + gt[1]) - std::fmax(det[1], gt[1]);
  if (h <= 0) return 0.0;
  const double intersection = w * h, area = det[2] * det[3];
  return intersection / (crowd ? area : area + gt[2] * gt[3] - intersection);
}

at::Tensor box_iou(const at::Tensor& det_boxes, const at::Tensor& gt_boxes, const at::Tensor& gt_crowd,
                   const at::Tensor& det_start, const at::Tensor& gt_start) {
  const char* op = "box_iou";
  check_shape(op, "det_boxes", det_boxes, {-1, 4}, "(D, 4)");
  check_shape(op, "gt_boxes", gt_boxes, {-1, 4}, "(G, 4)");
  check_dtype(op, "det_boxes", det_boxes, at::kDouble);
  check_dtype(op, "gt_boxes", gt_boxes, at::kDouble);
  const bool* crowd = check_column<bool>(op, "gt_crowd", gt_crowd, at::kBool, gt_boxes.size(0));
  const PairTable pairs(op, det_start, gt_start, det_boxes.size(0), gt_boxes.size(0));
  const at::Tensor dets = det_boxes.contiguous(), gts = gt_boxes.contiguous();
  const double *det = dets.const_data_ptr<double>(), *gt = gts.const_data_ptr<double>();
  at::Tensor result = at::empty({pairs.iou_start[pairs.count]}, dets.options());
  double* out = result.mutable_data_ptr<double>();
  at::parallel_for(0, pairs.count, kPairsPerTask, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      double* iou = out + pairs.iou_start[c];
      for (int64_t d = pairs.det_start[c]; d < pairs.det_start[c + 1]; ++d) {
        for (int64_t g = pairs.gt_start[c]; g < pairs.gt_start[c + 1]; ++g) {
          *iou++ = iou_of_boxes(det + 4 * d, gt + 4 * g, crowd[g]);
        }
      }
    }
  });
  return result;
}

void store_min(std::atomic<int64_t>& minimum, int64_t value) {
  int64_t seen = minimum.load();
  while (value < seen && !minimum.compare_exchange_weak(seen, value)) {
  }
}

double iou_of_masks(const Runs& det, const Runs& gt, bool crowd) {
  const int64_t intersection = intersection_area(det, gt);
  if (intersection == 0) return 0.0;
  const int64_t union_area = crowd ? det.area : det.area + gt.area - intersection;
  return static_cast<double>(intersection) / static_cast<double>(union_area);
}

// Also the minimum row of a detection and of a ground truth whose text is malformed, or -1.
std::tuple<at::Tensor, int64_t, int64_t> mask_iou(const at::Tensor& det_text, const at::Tensor& det_table,
                                                  const at::Tensor& gt_text, const at::Tensor& gt_table,
                                                  const at::Tensor& gt_crowd, const at::Tensor& det_start,
                                                  const at::Tensor& gt_start) {
  const char* op = "mask_iou";
  const RleTable dets = check_rle(op, "det_table", det_text, det_table);
  const RleTable gts = check_rle(op, "gt_table", gt_text, gt_table);
  const bool* crowd = check_column<bool>(op, "gt_crowd", gt_crowd, at::kBool, gt_table.size(0));
  const PairTable pairs(op, det_start, gt_start, det_table.size(0), gt_table.size(0));
  at::Tensor result = at::empty({pairs.iou_start[pairs.count]}, at::TensorOptions().dtype(at::kDouble));
  double* out = result.mutable_data_ptr<double>();
  std::atomic<int64_t> bad_det{INT64_MAX}, bad_gt{INT64_MAX};
  at::parallel_for(0, pairs.count, kPairsPerTask, [&](int64_t first, int64_t last) {
    Runs det;
    std::vector<Runs> truths;
    for (int64_t c = first; c < last; ++c) {
      const int64_t begin = pairs.gt_start[c], count = pairs.truths_in(c);
      if (count == 0 || pairs.detections_in(c) == 0) continue;
      if (static_cast<int64_t>(truths.size()) < count) truths.resize(count);
      for (int64_t g = 0; g < count; ++g) {
        if (truths[g].decode(gts[begin + g]) != kRleValid) store_min(bad_gt, begin + g);
      }
      double* iou = out + pairs.iou_start[c];
      for (int64_t d = pairs.det_start[c]; d < pairs.det_start[c + 1]; ++d) {
        if (det.decode(dets[d]) != kRleValid) store_min(bad_det, d);
        for (int64_t g = 0; g < count; ++g) {
          const RleText one = dets[d], other = gts[begin + g];
          // parity: masks of different sizes have the IoU -1.
          const bool same = one.height == other.height && one.width == other.width;
          *iou++ = same ? iou_of_masks(det, truths[g], crowd[begin + g]) : -1.0;
        }
      }
    }
  });
  const auto index = [](const std::atomic<int64_t>& value) {
    return value.load() == INT64_MAX ? int64_t{-1} : value.load();
  };
  return {result, index(bad_det), index(bad_gt)};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("box_iou", TORCH_FN(mrb::box_iou));
  m.impl("mask_iou", TORCH_FN(mrb::mask_iou));
}
