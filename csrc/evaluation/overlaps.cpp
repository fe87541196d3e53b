// IoU of the detections and the ground truths of each cell, as boxes or as run-length encoded masks. Equal to
// the COCO mask library to the bit: the same sums and quotients in float64.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <atomic>
#include <cmath>

#include "cells.h"
#include "rle.h"

namespace mrb {
namespace {

constexpr int64_t kCellsPerTask = 64;

// x, y, width, height, without an inclusive + 1; a crowd counts against the detection's area alone.
double box_iou(const double* det, const double* gt, bool crowd) {
  const double w = std::fmin(det[2] + det[0], gt[2] + gt[0]) - std::fmax(det[0], gt[0]);
  if (w <= 0) return 0.0;
  const double h = std::fmin(det[3] + det[1], gt[3] + gt[1]) - std::fmax(det[1], gt[1]);
  if (h <= 0) return 0.0;
  const double shared = w * h, area = det[2] * det[3];
  return shared / (crowd ? area : area + gt[2] * gt[3] - shared);
}

at::Tensor box_overlaps(const at::Tensor& det_boxes, const at::Tensor& gt_boxes, const at::Tensor& gt_crowd,
                        const at::Tensor& det_start, const at::Tensor& gt_start) {
  const char* op = "box_overlaps";
  check_shape(op, "det_boxes", det_boxes, {-1, 4}, "(D, 4)");
  check_shape(op, "gt_boxes", gt_boxes, {-1, 4}, "(G, 4)");
  check_dtype(op, "det_boxes", det_boxes, at::kDouble);
  check_dtype(op, "gt_boxes", gt_boxes, at::kDouble);
  const bool* crowd = check_column<bool>(op, "gt_crowd", gt_crowd, at::kBool, gt_boxes.size(0));
  const CellTable cells(op, det_start, gt_start, det_boxes.size(0), gt_boxes.size(0));
  const at::Tensor dets = det_boxes.contiguous(), gts = gt_boxes.contiguous();
  const double *det = dets.const_data_ptr<double>(), *gt = gts.const_data_ptr<double>();
  at::Tensor result = at::empty({cells.iou_start[cells.count]}, dets.options());
  double* out = result.mutable_data_ptr<double>();
  at::parallel_for(0, cells.count, kCellsPerTask, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      double* iou = out + cells.iou_start[c];
      for (int64_t d = cells.det_start[c]; d < cells.det_start[c + 1]; ++d) {
        for (int64_t g = cells.gt_start[c]; g < cells.gt_start[c + 1]; ++g) {
          *iou++ = box_iou(det + 4 * d, gt + 4 * g, crowd[g]);
        }
      }
    }
  });
  return result;
}

void keep_lowest(std::atomic<int64_t>& lowest, int64_t value) {
  int64_t seen = lowest.load();
  while (value < seen && !lowest.compare_exchange_weak(seen, value)) {
  }
}

double mask_iou(const Runs& det, const Runs& gt, bool crowd) {
  const int64_t shared = shared_pixels(det, gt);
  if (shared == 0) return 0.0;
  const int64_t whole = crowd ? det.area : det.area + gt.area - shared;
  return static_cast<double>(shared) / static_cast<double>(whole);
}

// Also the lowest row of a detection and of a ground truth whose text is malformed, or -1.
std::tuple<at::Tensor, int64_t, int64_t> mask_overlaps(const at::Tensor& det_text,
                                                       const at::Tensor& det_table, const at::Tensor& gt_text,
                                                       const at::Tensor& gt_table, const at::Tensor& gt_crowd,
                                                       const at::Tensor& det_start,
                                                       const at::Tensor& gt_start) {
  const char* op = "mask_overlaps";
  const RleTable dets = check_rle(op, "det_table", det_text, det_table);
  const RleTable gts = check_rle(op, "gt_table", gt_text, gt_table);
  const bool* crowd = check_column<bool>(op, "gt_crowd", gt_crowd, at::kBool, gt_table.size(0));
  const CellTable cells(op, det_start, gt_start, det_table.size(0), gt_table.size(0));
  at::Tensor result = at::empty({cells.iou_start[cells.count]}, at::TensorOptions().dtype(at::kDouble));
  double* out = result.mutable_data_ptr<double>();
  std::atomic<int64_t> bad_det{INT64_MAX}, bad_gt{INT64_MAX};
  at::parallel_for(0, cells.count, kCellsPerTask, [&](int64_t first, int64_t last) {
    Runs det;
    std::vector<Runs> truths;
    for (int64_t c = first; c < last; ++c) {
      const int64_t begin = cells.gt_start[c], count = cells.truths_in(c);
      if (count == 0 || cells.detections_in(c) == 0) continue;
      if (static_cast<int64_t>(truths.size()) < count) truths.resize(count);
      for (int64_t g = 0; g < count; ++g) {
        if (truths[g].decode(gts[begin + g]) != kRleFine) keep_lowest(bad_gt, begin + g);
      }
      double* iou = out + cells.iou_start[c];
      for (int64_t d = cells.det_start[c]; d < cells.det_start[c + 1]; ++d) {
        if (det.decode(dets[d]) != kRleFine) keep_lowest(bad_det, d);
        for (int64_t g = 0; g < count; ++g) {
          const RleText one = dets[d], other = gts[begin + g];
          // parity: masks of different sizes have the IoU -1.
          const bool same = one.height == other.height && one.width == other.width;
          *iou++ = same ? mask_iou(det, truths[g], crowd[begin + g]) : -1.0;
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
  m.impl("box_overlaps", TORCH_FN(mrb::box_overlaps));
  m.impl("mask_overlaps", TORCH_FN(mrb::mask_overlaps));
}
