// Precision and recall of boxes and of masks, from columns of detections and ground truth.
#include <torch/library.h>

#include "similarity.h"
#include "stream_categories.h"

namespace mrb {
namespace {

const int64_t* check_order(const char* op, const char* name, const at::Tensor& order, int64_t total) {
  check_shape(op, name, order, {-1}, "(N,)");
  const int64_t* row = check_column<int64_t>(op, name, order, at::kLong, order.size(0));
  for (int64_t i = 0; i < order.size(0); ++i) {
    TORCH_CHECK_VALUE(row[i] >= 0 && row[i] < total, op, ": ", name, "[", i, "] must be from 0 to ",
                      total - 1, ", got ", row[i]);
  }
  return row;
}

// layout: det_order, gt_order, det_start, gt_start, pair_start (`group_pairs`); det_columns: scores, areas,
// ignore_unmatched; gt_columns: areas, ignore, crowd; protocol: thresholds, area ranges, recall points.
struct Arguments {
  Arguments(const char* op, at::TensorList layout, at::TensorList det_columns, at::TensorList gt_columns,
            at::TensorList protocol, at::IntArrayRef max_dets)
      : checked(check_counts(op, layout, det_columns, gt_columns, protocol)),
        detections(det_columns[0].size(0)),
        truths(gt_columns[0].size(0)),
        pairs(op, layout[2], layout[3], layout[0].size(0), layout[1].size(0)),
        ranges(check_ranges(op, protocol[1])),
        rules(check_rules(op, protocol[0], ranges)),
        output(op, protocol[2], rules.num_thresholds, layout[4].size(0) - 1, rules.areas, max_dets) {
    in = {check_order(op, "det_order", layout[0], detections),
          check_order(op, "gt_order", layout[1], truths),
          check_starts(op, "pair_start", layout[4], pairs.count),
          check_column<double>(op, "scores", det_columns[0], at::kDouble, detections),
          check_column<double>(op, "det_areas", det_columns[1], at::kDouble, detections),
          check_column<double>(op, "gt_areas", gt_columns[0], at::kDouble, truths),
          check_column<bool>(op, "ignore_unmatched", det_columns[2], at::kBool, detections),
          check_column<bool>(op, "gt_ignore", gt_columns[1], at::kBool, truths),
          check_column<bool>(op, "gt_crowd", gt_columns[2], at::kBool, truths),
          layout[4].size(0) - 1};
    check_scores(op, in.scores, detections);
  }

  static bool check_counts(const char* op, at::TensorList layout, at::TensorList det_columns,
                           at::TensorList gt_columns, at::TensorList protocol) {
    TORCH_CHECK_VALUE(
        layout.size() == 5 && det_columns.size() == 3 && gt_columns.size() == 3 && protocol.size() == 3, op,
        ": layout, det_columns, gt_columns and protocol must hold 5, 3, 3 and 3 tensors");
    for (const int i : {0, 1, 4}) check_shape(op, "layout", layout[i], {-1}, "(N,)");
    check_shape(op, "scores", det_columns[0], {-1}, "(D,)");
    check_shape(op, "gt_areas", gt_columns[0], {-1}, "(G,)");
    TORCH_CHECK_VALUE(layout[4].size(0) > 0, op, ": pair_start must hold at least one 0");
    return true;
  }

  template <typename Similarity>
  void run(Similarity& similarity) {
    using Worker = typename Similarity::Worker;
    stream_categories(in, pairs, output.arrays,
                      [&] { return CategoryStream<Worker>(in, pairs, rules, Worker{similarity}); });
  }

  bool checked;
  int64_t detections, truths;
  PairTable pairs;
  at::Tensor ranges;
  MatchRules rules;
  CurveOutput output;
  StreamInputs in;
};

std::tuple<at::Tensor, at::Tensor> box_precision(const at::Tensor& det_boxes, const at::Tensor& gt_boxes,
                                                 at::TensorList layout, at::TensorList det_columns,
                                                 at::TensorList gt_columns, at::TensorList protocol,
                                                 at::IntArrayRef max_dets) {
  const char* op = "box_precision";
  Arguments arguments(op, layout, det_columns, gt_columns, protocol, max_dets);
  check_shape(op, "det_boxes", det_boxes, {arguments.detections, 4}, "(D, 4)");
  check_shape(op, "gt_boxes", gt_boxes, {arguments.truths, 4}, "(G, 4)");
  check_dtype(op, "det_boxes", det_boxes, at::kDouble);
  check_dtype(op, "gt_boxes", gt_boxes, at::kDouble);
  const at::Tensor dets = det_boxes.contiguous(), gts = gt_boxes.contiguous();
  BoxSimilarity similarity{dets.const_data_ptr<double>(), gts.const_data_ptr<double>()};
  arguments.run(similarity);
  return {arguments.output.precision, arguments.output.recall};
}

// Also the minimum row of a detection and of a ground truth whose mask is malformed, or -1.
std::tuple<at::Tensor, at::Tensor, int64_t, int64_t> mask_precision(
    const at::Tensor& det_text, const at::Tensor& det_table, const at::Tensor& records,
    const at::Tensor& spans, const at::Tensor& sizes, at::TensorList layout, at::TensorList det_columns,
    at::TensorList gt_columns, at::TensorList protocol, at::IntArrayRef max_dets) {
  const char* op = "mask_precision";
  Arguments arguments(op, layout, det_columns, gt_columns, protocol, max_dets);
  const RleTable dets = check_rle(op, "det_table", det_text, det_table);
  check_shape(op, "det_table", det_table, {arguments.detections, 4}, "(D, 4)");
  MaskSimilarity similarity{dets, check_records(op, records, spans, sizes, arguments.truths), {}, {}};
  arguments.run(similarity);
  return {arguments.output.precision, arguments.output.recall, similarity.bad_det.value(),
          similarity.bad_gt.value()};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("box_precision", TORCH_FN(mrb::box_precision));
  m.impl("mask_precision", TORCH_FN(mrb::mask_precision));
}
