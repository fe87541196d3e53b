// Precision at recall points and final recall per category, from the outcomes of matching.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "pairs.h"

namespace mrb {
namespace {

constexpr uint8_t kFalsePositive = 0, kTruePositive = 1;

struct Inputs {
  const uint8_t* outcome;
  const bool* gt_ignored;
  const double *scores, *recall_points;
  const int64_t *det_rank, *det_start, *gt_start;
  int64_t areas, num_thresholds, detections, truths, categories, points;
  std::vector<int64_t> limits;
};

class CategoryCurves {
 public:
  void run(const Inputs& in, int64_t category, double* precision, double* recall) {
    const int64_t first = in.det_start[category], last = in.det_start[category + 1];
    order_.resize(last - first);
    for (int64_t i = first; i < last; ++i) order_[i - first] = i;
    // Stable: equal scores keep the order of images, then of results.
    std::stable_sort(order_.begin(), order_.end(),
                     [&](int64_t a, int64_t b) { return in.scores[a] > in.scores[b]; });
    const int64_t slots = in.limits.size();
    for (int64_t slot = 0; slot < slots; ++slot) {
      kept_.clear();
      for (const int64_t d : order_) {
        if (in.det_rank[d] < in.limits[slot]) kept_.push_back(d);
      }
      for (int64_t area = 0; area < in.areas; ++area) {
        const bool* ignored = in.gt_ignored + area * in.truths;
        const int64_t positives =
            std::count(ignored + in.gt_start[category], ignored + in.gt_start[category + 1], false);
        if (positives == 0) continue;
        for (int64_t t = 0; t < in.num_thresholds; ++t) {
          const uint8_t* outcome = in.outcome + (area * in.num_thresholds + t) * in.detections;
          const double reached = curve(outcome, positives);
          recall[((t * in.categories + category) * in.areas + area) * slots + slot] = reached;
          for (int64_t r = 0; r < in.points; ++r) {
            const int64_t row = (t * in.points + r) * in.categories + category;
            precision[(row * in.areas + area) * slots + slot] = read_at(in.recall_points[r], positives);
          }
        }
      }
    }
  }

 private:
  // Precision at every true positive, made monotone from the right; returns the final recall. Between two
  // true positives precision only decreases, so no other detection can be a maximum.
  double curve(const uint8_t* outcome, int64_t positives) {
    precisions_.clear();
    position_ = 0;
    int64_t false_positives = 0;
    for (const int64_t d : kept_) {
      false_positives += outcome[d] == kFalsePositive;
      if (outcome[d] != kTruePositive) continue;
      const double true_positives = static_cast<double>(precisions_.size() + 1);
      // parity: machine epsilon in the denominator, added last.
      precisions_.push_back(true_positives / (static_cast<double>(false_positives) + true_positives +
                                              std::numeric_limits<double>::epsilon()));
    }
    for (int64_t i = static_cast<int64_t>(precisions_.size()) - 2; i >= 0; --i) {
      precisions_[i] = std::max(precisions_[i], precisions_[i + 1]);
    }
    return static_cast<double>(precisions_.size()) / static_cast<double>(positives);
  }

  // Precision at the first recall >= point, 0 beyond the last; points are ascending.
  double read_at(double point, int64_t positives) {
    const int64_t count = precisions_.size();
    while (position_ < count && static_cast<double>(position_ + 1) / static_cast<double>(positives) < point)
      ++position_;
    return position_ < count ? precisions_[position_] : 0.0;
  }

  std::vector<int64_t> order_, kept_;
  std::vector<double> precisions_;
  int64_t position_ = 0;
};

std::tuple<at::Tensor, at::Tensor> accumulate(const at::Tensor& outcome, const at::Tensor& gt_ignored,
                                              const at::Tensor& scores, const at::Tensor& det_rank,
                                              const at::Tensor& det_start, const at::Tensor& gt_start,
                                              const at::Tensor& recall_points, at::IntArrayRef max_dets) {
  const char* op = "accumulate_precision";
  check_shape(op, "outcome", outcome, {-1, -1, -1}, "(A, T, D)");
  check_dtype(op, "outcome", outcome, at::kByte);
  check_shape(op, "gt_ignored", gt_ignored, {outcome.size(0), -1}, "(A, G)");
  check_dtype(op, "gt_ignored", gt_ignored, at::kBool);
  check_shape(op, "recall_points", recall_points, {-1}, "(R,)");
  const at::Tensor outcomes = outcome.contiguous(), ignored = gt_ignored.contiguous();
  const int64_t areas = outcome.size(0), num_thresholds = outcome.size(1), detections = outcome.size(2);
  const int64_t truths = gt_ignored.size(1), points = recall_points.size(0);
  Inputs in{outcomes.const_data_ptr<uint8_t>(),
            ignored.const_data_ptr<bool>(),
            check_column<double>(op, "scores", scores, at::kDouble, detections),
            check_column<double>(op, "recall_points", recall_points, at::kDouble, points),
            check_column<int64_t>(op, "det_rank", det_rank, at::kLong, detections),
            check_starts(op, "det_start", det_start, detections),
            check_starts(op, "gt_start", gt_start, truths),
            areas,
            num_thresholds,
            detections,
            truths,
            det_start.size(0) - 1,
            points,
            max_dets.vec()};
  TORCH_CHECK_VALUE(gt_start.size(0) == in.categories + 1, op, ": gt_start must be as long as det_start (",
                    in.categories + 1, "), got ", gt_start.size(0));
  TORCH_CHECK_VALUE(std::is_sorted(in.recall_points, in.recall_points + points), op,
                    ": recall_points must not decrease");
  for (int64_t d = 0; d < detections; ++d) {
    TORCH_CHECK_VALUE(!std::isnan(in.scores[d]), op, ": score ", d, " is NaN");
  }
  const int64_t slots = in.limits.size();
  const auto options = at::TensorOptions().dtype(at::kDouble);
  at::Tensor precision = at::full({num_thresholds, points, in.categories, areas, slots}, -1.0, options);
  at::Tensor recall = at::full({num_thresholds, in.categories, areas, slots}, -1.0, options);
  double *precision_out = precision.mutable_data_ptr<double>(),
         *recall_out = recall.mutable_data_ptr<double>();
  at::parallel_for(0, in.categories, 1, [&](int64_t first, int64_t last) {
    CategoryCurves curves;
    for (int64_t category = first; category < last; ++category) {
      curves.run(in, category, precision_out, recall_out);
    }
  });
  return {precision, recall};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) { m.impl("accumulate_precision", TORCH_FN(mrb::accumulate)); }
