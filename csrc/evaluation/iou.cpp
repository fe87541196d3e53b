// IoU of the detections and the ground truth of each (image, category) pair, as boxes or as masks.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <numeric>

#include "pairs.h"
#include "similarity.h"

namespace mrb {
namespace {

constexpr int64_t kPairsPerTask = 64;

std::vector<int64_t> first_integers(int64_t count) {
  std::vector<int64_t> values(count);
  std::iota(values.begin(), values.end(), 0);
  return values;
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
  const std::vector<int64_t> iou_start = pairs.iou_starts();
  at::Tensor result = at::empty({iou_start.back()}, dets.options());
  double* out = result.mutable_data_ptr<double>();
  const BoxSimilarity similarity{dets.const_data_ptr<double>(), gts.const_data_ptr<double>()};
  const std::vector<int64_t> rows = first_integers(std::max(det_boxes.size(0), gt_boxes.size(0)));
  at::parallel_for(0, pairs.count, kPairsPerTask, [&](int64_t first, int64_t last) {
    BoxSimilarity::Worker worker{similarity};
    for (int64_t p = first; p < last; ++p) {
      worker.run(rows.data() + pairs.det_start[p], pairs.detections_in(p), rows.data() + pairs.gt_start[p],
                 pairs.truths_in(p), crowd + pairs.gt_start[p], out + iou_start[p]);
    }
  });
  return result;
}

// Also the minimum row of a detection and of a ground truth whose mask is malformed, or -1.
std::tuple<at::Tensor, int64_t, int64_t> mask_iou(const at::Tensor& det_text, const at::Tensor& det_table,
                                                  const at::Tensor& records, const at::Tensor& spans,
                                                  const at::Tensor& sizes, const at::Tensor& gt_crowd,
                                                  const at::Tensor& det_start, const at::Tensor& gt_start) {
  const char* op = "mask_iou";
  check_shape(op, "gt_crowd", gt_crowd, {-1}, "(G,)");
  const RleTable dets = check_rle(op, "det_table", det_text, det_table);
  const int64_t detections = det_table.size(0), truths = gt_crowd.size(0);
  MaskSimilarity similarity{dets, check_records(op, records, spans, sizes, truths), {}, {}};
  const bool* crowd = check_column<bool>(op, "gt_crowd", gt_crowd, at::kBool, truths);
  const PairTable pairs(op, det_start, gt_start, detections, truths);
  const std::vector<int64_t> iou_start = pairs.iou_starts();
  at::Tensor result = at::empty({iou_start.back()}, at::TensorOptions().dtype(at::kDouble));
  double* out = result.mutable_data_ptr<double>();
  const std::vector<int64_t> rows = first_integers(std::max(detections, truths));
  at::parallel_for(0, pairs.count, kPairsPerTask, [&](int64_t first, int64_t last) {
    MaskSimilarity::Worker worker(similarity);
    for (int64_t p = first; p < last; ++p) {
      if (pairs.detections_in(p) == 0 || pairs.truths_in(p) == 0) continue;
      worker.run(rows.data() + pairs.det_start[p], pairs.detections_in(p), rows.data() + pairs.gt_start[p],
                 pairs.truths_in(p), crowd + pairs.gt_start[p], out + iou_start[p]);
    }
  });
  return {result, similarity.bad_det.value(), similarity.bad_gt.value()};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("box_iou", TORCH_FN(mrb::box_iou));
  m.impl("mask_iou", TORCH_FN(mrb::mask_iou));
}
