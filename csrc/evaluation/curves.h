// Precision at recall points and final recall of one category, for all area ranges and IoU thresholds in one
// pass over its detections.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "matcher.h"

namespace mrb {

// Where the values of a category go: precision (T, R, K, A, M) and recall (T, K, A, M).
struct CurveArrays {
  double *precision, *recall;
  const double* recall_points;
  int64_t num_thresholds, points, categories, areas;
  std::vector<int64_t> limits;  // M: numbers of best detections of a pair that count
};

// Detections of a category: `score`, and `rank` inside the pair, by position; a row of A * T outcomes each.
struct RankedDetection {
  double score;
  int64_t rank, position;
};

class CategoryCurves {
 public:
  // `detections` in the order of images, then of rank; sorted here. positives (A,): ground truth that counts.
  // row(position): outcomes uint8 (A * T,) of a detection.
  template <typename Row>
  void run(std::vector<RankedDetection>& detections, const Row& row, const std::vector<int64_t>& positives,
           int64_t category, const CurveArrays& out) {
    // Equal scores keep the order of images, then of rank.
    std::sort(detections.begin(), detections.end(), [](const RankedDetection& a, const RankedDetection& b) {
      return a.score != b.score ? a.score > b.score : a.position < b.position;
    });
    const int64_t slots = out.limits.size();
    for (int64_t slot = 0; slot < slots; ++slot) {
      collect(detections, row, out.limits[slot], out.areas * out.num_thresholds);
      for (int64_t area = 0; area < out.areas; ++area) {
        if (positives[area] == 0) continue;
        for (int64_t t = 0; t < out.num_thresholds; ++t) {
          std::vector<double>& precisions = precisions_[area * out.num_thresholds + t];
          const int64_t found = precisions.size();
          for (int64_t i = found - 2; i >= 0; --i) precisions[i] = std::max(precisions[i], precisions[i + 1]);
          const auto count = static_cast<double>(positives[area]);
          out.recall[((t * out.categories + category) * out.areas + area) * slots + slot] =
              static_cast<double>(found) / count;
          // Precision at the first recall >= point, 0 beyond the last; points are ascending.
          int64_t at = 0;
          for (int64_t r = 0; r < out.points; ++r) {
            while (at < found && static_cast<double>(at + 1) / count < out.recall_points[r]) ++at;
            const int64_t line = (t * out.points + r) * out.categories + category;
            out.precision[(line * out.areas + area) * slots + slot] = at < found ? precisions[at] : 0.0;
          }
        }
      }
    }
  }

 private:
  // Precision at every true positive of the detections of a rank below `limit`. Between two true positives
  // precision only decreases, so no other detection can be a maximum.
  template <typename Row>
  void collect(const std::vector<RankedDetection>& detections, const Row& row, int64_t limit,
               int64_t curves) {
    precisions_.resize(curves);
    for (auto& precisions : precisions_) precisions.clear();
    false_positives_.assign(curves, 0);
    for (const RankedDetection& detection : detections) {
      if (detection.rank >= limit) continue;
      const uint8_t* outcome = row(detection.position);
      uint8_t any = 0;
      for (int64_t c = 0; c < curves; ++c) {
        false_positives_[c] += outcome[c] == kFalsePositive;
        any |= outcome[c] & kTruePositive;
      }
      if (!any) continue;
      for (int64_t c = 0; c < curves; ++c) {
        if (outcome[c] != kTruePositive) continue;
        const auto true_positives = static_cast<double>(precisions_[c].size() + 1);
        // parity: machine epsilon in the denominator, added last.
        precisions_[c].push_back(true_positives / (static_cast<double>(false_positives_[c]) + true_positives +
                                                   std::numeric_limits<double>::epsilon()));
      }
    }
  }

  std::vector<std::vector<double>> precisions_;
  std::vector<uint32_t> false_positives_;
};

}  // namespace mrb
