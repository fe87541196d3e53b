// Greedy matching of the detections and the ground truth of one (image, category) pair, for every area range
// and IoU threshold.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace mrb {

enum Outcome : uint8_t { kFalsePositive = 0, kTruePositive = 1, kIgnored = 2 };

struct MatchRules {
  const double *ranges, *thresholds;
  int64_t areas, num_thresholds;
  double min_threshold = 1.0;

  MatchRules(const double* area_ranges, int64_t num_areas, const double* iou_thresholds, int64_t count)
      : ranges(area_ranges), thresholds(iou_thresholds), areas(num_areas), num_thresholds(count) {
    for (int64_t t = 0; t < count; ++t) min_threshold = std::min(min_threshold, limit(t));
  }
  double limit(int64_t t) const { return std::min(thresholds[t], 1.0 - 1e-10); }
  // Both ends belong to the range, compared so that NaN counts as inside, as in numpy.
  bool outside(double area, int64_t range) const {
    return area < ranges[2 * range] || area > ranges[2 * range + 1];
  }
};

// One pair: `detections` in descending order of score, `truths` in file order, `ious` (detections, truths).
struct MatchPair {
  int64_t detections, truths;
  const double *ious, *det_areas, *gt_areas;
  const bool *det_ignore, *gt_ignore, *gt_crowd;
};

class PairMatcher {
 public:
  // Calls put(detection, area, threshold, outcome) for all, after put_ignored(truth, area, ignored).
  template <typename Put, typename PutIgnored>
  void run(const MatchRules& rules, const MatchPair& pair, const Put& put, const PutIgnored& put_ignored) {
    candidate_.resize(pair.detections);
    for (int64_t d = 0; d < pair.detections; ++d) {
      const double* iou = pair.ious + d * pair.truths;
      candidate_[d] =
          std::any_of(iou, iou + pair.truths, [&](double value) { return value >= rules.min_threshold; });
    }
    for (int64_t area = 0; area < rules.areas; ++area) {
      regular_.clear();
      ignored_.clear();
      for (int64_t g = 0; g < pair.truths; ++g) {
        const bool ignored = pair.gt_ignore[g] || rules.outside(pair.gt_areas[g], area);
        put_ignored(g, area, ignored);
        (ignored ? ignored_ : regular_).push_back(g);
      }
      matched_.assign(rules.num_thresholds * pair.truths, 0);
      for (int64_t d = 0; d < pair.detections; ++d) {
        const bool outside = pair.det_ignore[d] || rules.outside(pair.det_areas[d], area);
        const Outcome unmatched = outside ? kIgnored : kFalsePositive;
        for (int64_t t = 0; t < rules.num_thresholds; ++t) {
          put(d, area, t, candidate_[d] ? match(rules, pair, d, t, unmatched) : unmatched);
        }
      }
    }
  }

 private:
  Outcome match(const MatchRules& rules, const MatchPair& pair, int64_t d, int64_t t, Outcome unmatched) {
    const double* iou = pair.ious + d * pair.truths;
    uint8_t* matched = matched_.data() + t * pair.truths;
    const double limit = rules.limit(t);
    int64_t best = best_candidate(regular_, iou, matched, pair.gt_crowd, limit);
    const bool right = best >= 0;
    if (!right) best = best_candidate(ignored_, iou, matched, pair.gt_crowd, limit);
    if (best < 0) return unmatched;
    matched[best] = 1;
    return right ? kTruePositive : kIgnored;
  }

  // The best unmatched ground truth of `candidates` for a detection: the last of the highest IoU at or above
  // `limit`, or -1.
  static int64_t best_candidate(const std::vector<int64_t>& candidates, const double* iou,
                                const uint8_t* matched, const bool* crowd, double limit) {
    int64_t best = -1;
    for (const int64_t g : candidates) {
      if ((matched[g] && !crowd[g]) || !(iou[g] >= limit)) continue;
      limit = iou[g];
      best = g;
    }
    return best;
  }

  std::vector<int64_t> regular_, ignored_;
  std::vector<uint8_t> matched_, candidate_;
};

}  // namespace mrb
