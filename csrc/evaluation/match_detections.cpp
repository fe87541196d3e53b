// Greedy matching of detections to ground truth in each (image, category) pair, for every area range and IoU
// threshold.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "pairs.h"

namespace mrb {
namespace {

constexpr int64_t kPairsPerTask = 64;
enum Outcome : uint8_t { kFalsePositive = 0, kTruePositive = 1, kIgnored = 2 };

struct Inputs {
  const double *ious, *det_areas, *gt_areas, *ranges, *thresholds;
  const bool *det_ignore, *gt_ignore, *gt_crowd;
  int64_t areas, num_thresholds, detections, truths;
  double min_threshold;

  double limit(int64_t t) const { return std::min(thresholds[t], 1.0 - 1e-10); }
  // Both ends belong to the range, compared so that NaN counts as inside, as in numpy.
  bool outside(double area, int64_t range) const {
    return area < ranges[2 * range] || area > ranges[2 * range + 1];
  }
};

// The best unmatched ground truth of `candidates` for a detection: the last of the highest IoU at or above
// `limit`, or -1.
int64_t best_candidate(const std::vector<int64_t>& candidates, const double* iou, const uint8_t* matched,
                       const bool* crowd, double limit) {
  int64_t best = -1;
  for (const int64_t g : candidates) {
    if ((matched[g] && !crowd[g]) || !(iou[g] >= limit)) continue;
    limit = iou[g];
    best = g;
  }
  return best;
}

// One pair and one area range; `out` and `gt_ignored` are those of the range.
class PairMatcher {
 public:
  void run(const Inputs& in, const PairTable& pairs, int64_t pair, int64_t range, uint8_t* out,
           bool* gt_ignored) {
    const int64_t gt_first = pairs.gt_start[pair], count = pairs.truths_in(pair);
    regular_.clear();
    ignored_.clear();
    for (int64_t g = 0; g < count; ++g) {
      const int64_t at = gt_first + g;
      gt_ignored[at] = in.gt_ignore[at] || in.outside(in.gt_areas[at], range);
      (gt_ignored[at] ? ignored_ : regular_).push_back(g);
    }
    matched_.assign(in.num_thresholds * count, 0);
    for (int64_t d = pairs.det_start[pair]; d < pairs.det_start[pair + 1]; ++d) {
      const double* iou = in.ious + pairs.iou_start[pair] + (d - pairs.det_start[pair]) * count;
      const bool no_candidate =
          std::none_of(iou, iou + count, [&](double value) { return value >= in.min_threshold; });
      const bool ignored = in.det_ignore[d] || in.outside(in.det_areas[d], range);
      for (int64_t t = 0; t < in.num_thresholds; ++t) {
        uint8_t* matched = matched_.data() + t * count;
        const bool* crowd = in.gt_crowd + gt_first;
        uint8_t outcome = ignored ? kIgnored : kFalsePositive;
        if (!no_candidate) {
          int64_t match = best_candidate(regular_, iou, matched, crowd, in.limit(t));
          const bool right = match >= 0;
          if (!right) match = best_candidate(ignored_, iou, matched, crowd, in.limit(t));
          if (match >= 0) {
            matched[match] = 1;
            outcome = right ? kTruePositive : kIgnored;
          }
        }
        out[t * in.detections + d] = outcome;
      }
    }
  }

 private:
  std::vector<int64_t> regular_, ignored_;
  std::vector<uint8_t> matched_;
};

std::tuple<at::Tensor, at::Tensor> match_detections(const at::Tensor& ious, const at::Tensor& det_start,
                                                    const at::Tensor& gt_start, const at::Tensor& det_areas,
                                                    const at::Tensor& det_ignore, const at::Tensor& gt_areas,
                                                    const at::Tensor& gt_ignore, const at::Tensor& gt_crowd,
                                                    const at::Tensor& thresholds,
                                                    const at::Tensor& area_ranges) {
  const char* op = "match_detections";
  check_shape(op, "det_areas", det_areas, {-1}, "(D,)");
  check_shape(op, "gt_areas", gt_areas, {-1}, "(G,)");
  check_shape(op, "thresholds", thresholds, {-1}, "(T,)");
  check_shape(op, "area_ranges", area_ranges, {-1, 2}, "(A, 2)");
  check_dtype(op, "area_ranges", area_ranges, at::kDouble);
  const int64_t detections = det_areas.size(0), truths = gt_areas.size(0);
  const PairTable pairs(op, det_start, gt_start, detections, truths);
  const at::Tensor ranges = area_ranges.contiguous();
  Inputs in{check_column<double>(op, "ious", ious, at::kDouble, pairs.iou_start[pairs.count]),
            check_column<double>(op, "det_areas", det_areas, at::kDouble, detections),
            check_column<double>(op, "gt_areas", gt_areas, at::kDouble, truths),
            ranges.const_data_ptr<double>(),
            check_column<double>(op, "thresholds", thresholds, at::kDouble, thresholds.size(0)),
            check_column<bool>(op, "det_ignore", det_ignore, at::kBool, detections),
            check_column<bool>(op, "gt_ignore", gt_ignore, at::kBool, truths),
            check_column<bool>(op, "gt_crowd", gt_crowd, at::kBool, truths),
            ranges.size(0),
            thresholds.size(0),
            detections,
            truths,
            1.0};
  for (int64_t t = 0; t < in.num_thresholds; ++t) in.min_threshold = std::min(in.min_threshold, in.limit(t));
  at::Tensor outcome =
      at::empty({in.areas, in.num_thresholds, detections}, at::TensorOptions().dtype(at::kByte));
  at::Tensor ignored = at::empty({in.areas, truths}, at::TensorOptions().dtype(at::kBool));
  uint8_t* out = outcome.mutable_data_ptr<uint8_t>();
  bool* gt_ignored = ignored.mutable_data_ptr<bool>();
  at::parallel_for(0, pairs.count, kPairsPerTask, [&](int64_t first, int64_t last) {
    PairMatcher matcher;
    for (int64_t range = 0; range < in.areas; ++range) {
      for (int64_t pair = first; pair < last; ++pair) {
        matcher.run(in, pairs, pair, range, out + range * in.num_thresholds * detections,
                    gt_ignored + range * truths);
      }
    }
  });
  return {outcome, ignored};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("match_detections", TORCH_FN(mrb::match_detections));
}
