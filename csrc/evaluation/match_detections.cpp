// Greedy matching of detections to ground truth in each (image, category) pair, for every area range and IoU
// threshold.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "matcher.h"
#include "pairs.h"

namespace mrb {
namespace {

constexpr int64_t kPairsPerTask = 64;

std::tuple<at::Tensor, at::Tensor> match_detections(const at::Tensor& ious, const at::Tensor& det_start,
                                                    const at::Tensor& gt_start, const at::Tensor& det_areas,
                                                    const at::Tensor& det_ignore, const at::Tensor& gt_areas,
                                                    const at::Tensor& gt_ignore, const at::Tensor& gt_crowd,
                                                    const at::Tensor& thresholds,
                                                    const at::Tensor& area_ranges) {
  const char* op = "match_detections";
  check_shape(op, "det_areas", det_areas, {-1}, "(D,)");
  check_shape(op, "gt_areas", gt_areas, {-1}, "(G,)");
  const int64_t detections = det_areas.size(0), truths = gt_areas.size(0);
  const PairTable pairs(op, det_start, gt_start, detections, truths);
  const std::vector<int64_t> iou_start = pairs.iou_starts();
  const at::Tensor ranges = check_ranges(op, area_ranges);
  const MatchRules rules = check_rules(op, thresholds, ranges);
  const MatchPair all{detections,
                      truths,
                      check_column<double>(op, "ious", ious, at::kDouble, iou_start.back()),
                      check_column<double>(op, "det_areas", det_areas, at::kDouble, detections),
                      check_column<double>(op, "gt_areas", gt_areas, at::kDouble, truths),
                      check_column<bool>(op, "det_ignore", det_ignore, at::kBool, detections),
                      check_column<bool>(op, "gt_ignore", gt_ignore, at::kBool, truths),
                      check_column<bool>(op, "gt_crowd", gt_crowd, at::kBool, truths)};
  at::Tensor outcome =
      at::empty({rules.areas, rules.num_thresholds, detections}, at::TensorOptions().dtype(at::kByte));
  at::Tensor ignored = at::empty({rules.areas, truths}, at::TensorOptions().dtype(at::kBool));
  uint8_t* out = outcome.mutable_data_ptr<uint8_t>();
  bool* gt_ignored = ignored.mutable_data_ptr<bool>();
  at::parallel_for(0, pairs.count, kPairsPerTask, [&](int64_t first, int64_t last) {
    PairMatcher matcher;
    for (int64_t p = first; p < last; ++p) {
      const int64_t det = pairs.det_start[p], gt = pairs.gt_start[p];
      const MatchPair pair{pairs.detections_in(p), pairs.truths_in(p), all.ious + iou_start[p],
                           all.det_areas + det,    all.gt_areas + gt,  all.det_ignore + det,
                           all.gt_ignore + gt,     all.gt_crowd + gt};
      matcher.run(
          rules, pair,
          [&](int64_t d, int64_t area, int64_t t, Outcome value) {
            out[(area * rules.num_thresholds + t) * detections + det + d] = value;
          },
          [&](int64_t g, int64_t area, bool value) { gt_ignored[area * truths + gt + g] = value; });
    }
  });
  return {outcome, ignored};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("match_detections", TORCH_FN(mrb::match_detections));
}
