// Precision at recall points and final recall per category, from the outcomes of matching.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "curve_output.h"
#include "pairs.h"

namespace mrb {
namespace {

std::tuple<at::Tensor, at::Tensor> accumulate(const at::Tensor& outcome, const at::Tensor& gt_ignored,
                                              const at::Tensor& scores, const at::Tensor& det_rank,
                                              const at::Tensor& det_start, const at::Tensor& gt_start,
                                              const at::Tensor& recall_points, at::IntArrayRef max_dets) {
  const char* op = "accumulate_precision";
  check_shape(op, "outcome", outcome, {-1, -1, -1}, "(A, T, D)");
  check_dtype(op, "outcome", outcome, at::kByte);
  check_shape(op, "gt_ignored", gt_ignored, {outcome.size(0), -1}, "(A, G)");
  check_dtype(op, "gt_ignored", gt_ignored, at::kBool);
  const at::Tensor outcomes = outcome.contiguous(), ignored = gt_ignored.contiguous();
  const int64_t areas = outcome.size(0), num_thresholds = outcome.size(1), detections = outcome.size(2);
  const int64_t truths = gt_ignored.size(1), curves = areas * num_thresholds;
  const uint8_t* outcome_of = outcomes.const_data_ptr<uint8_t>();
  const bool* is_ignored = ignored.const_data_ptr<bool>();
  const double* score = check_column<double>(op, "scores", scores, at::kDouble, detections);
  const int64_t* rank = check_column<int64_t>(op, "det_rank", det_rank, at::kLong, detections);
  const int64_t* det_first = check_starts(op, "det_start", det_start, detections);
  const int64_t* gt_first = check_starts(op, "gt_start", gt_start, truths);
  const int64_t categories = det_start.size(0) - 1;
  TORCH_CHECK_VALUE(gt_start.size(0) == categories + 1, op, ": gt_start must be as long as det_start (",
                    categories + 1, "), got ", gt_start.size(0));
  check_scores(op, score, detections);
  CurveOutput output(op, recall_points, num_thresholds, categories, areas, max_dets);
  at::parallel_for(0, categories, 1, [&](int64_t first, int64_t last) {
    CategoryCurves category_curves;
    std::vector<RankedDetection> ranked;
    std::vector<int64_t> positives(areas);
    std::vector<uint8_t> row(curves);
    for (int64_t category = first; category < last; ++category) {
      ranked.clear();
      for (int64_t d = det_first[category]; d < det_first[category + 1]; ++d) {
        ranked.push_back({score[d], rank[d], d});
      }
      for (int64_t area = 0; area < areas; ++area) {
        const bool* of_area = is_ignored + area * truths;
        positives[area] = std::count(of_area + gt_first[category], of_area + gt_first[category + 1], false);
      }
      const auto outcomes_of = [&](int64_t d) {
        for (int64_t c = 0; c < curves; ++c) row[c] = outcome_of[c * detections + d];
        return row.data();
      };
      category_curves.run(ranked, outcomes_of, positives, category, output.arrays);
    }
  });
  return {output.precision, output.recall};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) { m.impl("accumulate_precision", TORCH_FN(mrb::accumulate)); }
