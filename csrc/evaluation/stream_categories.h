// Precision and recall category by category: the IoU, the matches and the curves of a category exist only
// while a thread works on it.
#pragma once

#include <ATen/Parallel.h>

#include <atomic>
#include <numeric>

#include "curve_output.h"
#include "pairs.h"

namespace mrb {

// Columns of detections (D,) and ground truth (G,), and their order by pair. Category k holds the pairs
// pair_start[k]:pair_start[k + 1].
struct StreamInputs {
  const int64_t *det_order, *gt_order, *pair_start;
  const double *scores, *det_areas, *gt_areas;
  const bool *ignore_unmatched, *gt_ignore, *gt_crowd;
  int64_t categories;
};

// One thread's work; `Worker` computes the IoU of a pair (similarity.h).
template <typename Worker>
class CategoryStream {
 public:
  CategoryStream(const StreamInputs& in, const PairTable& pairs, const MatchRules& rules, Worker worker)
      : in_(in), pairs_(pairs), rules_(rules), worker_(std::move(worker)) {}

  void run(int64_t category, const CurveArrays& out) {
    const int64_t first = in_.pair_start[category], last = in_.pair_start[category + 1];
    const int64_t det_first = pairs_.det_start[first], gt_first = pairs_.gt_start[first];
    const int64_t detections = pairs_.det_start[last] - det_first, truths = pairs_.gt_start[last] - gt_first;
    if (truths == 0) return;
    width_ = rules_.areas * rules_.num_thresholds;
    outcomes_.resize(detections * width_);
    positives_.assign(rules_.areas, 0);
    ranked_.clear();
    for (int64_t pair = first; pair < last; ++pair) match(pair, det_first);
    const auto row = [&](int64_t position) { return outcomes_.data() + position * width_; };
    curves_.run(ranked_, row, positives_, category, out);
  }

 private:
  void match(int64_t pair, int64_t det_first) {
    const int64_t num_dets = pairs_.detections_in(pair), num_gts = pairs_.truths_in(pair);
    const int64_t *dets = in_.det_order + pairs_.det_start[pair], *gts = in_.gt_order + pairs_.gt_start[pair];
    gather(in_.gt_areas, gts, num_gts, gt_areas_);
    gather(in_.gt_ignore, gts, num_gts, gt_ignore_);
    gather(in_.gt_crowd, gts, num_gts, gt_crowd_);
    gather(in_.det_areas, dets, num_dets, det_areas_);
    gather(in_.ignore_unmatched, dets, num_dets, det_ignore_);
    const auto* crowd = reinterpret_cast<const bool*>(gt_crowd_.data());
    ious_.resize(num_dets * num_gts);
    if (!ious_.empty()) worker_.run(dets, num_dets, gts, num_gts, crowd, ious_.data());
    const MatchPair view{num_dets,
                         num_gts,
                         ious_.data(),
                         det_areas_.data(),
                         gt_areas_.data(),
                         reinterpret_cast<const bool*>(det_ignore_.data()),
                         reinterpret_cast<const bool*>(gt_ignore_.data()),
                         crowd};
    const int64_t base = pairs_.det_start[pair] - det_first;
    uint8_t* outcomes = outcomes_.data() + base * width_;
    matcher_.run(
        rules_, view,
        [&](int64_t d, int64_t area, int64_t t, Outcome value) {
          outcomes[d * width_ + area * rules_.num_thresholds + t] = value;
        },
        [&](int64_t, int64_t area, bool ignored) { positives_[area] += !ignored; });
    for (int64_t d = 0; d < num_dets; ++d) ranked_.push_back({in_.scores[dets[d]], d, base + d});
  }

  template <typename T, typename U>
  static void gather(const T* values, const int64_t* rows, int64_t count, std::vector<U>& out) {
    out.resize(count);
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<U>(values[rows[i]]);
  }

  const StreamInputs& in_;
  const PairTable& pairs_;
  const MatchRules& rules_;
  Worker worker_;
  PairMatcher matcher_;
  CategoryCurves curves_;
  int64_t width_ = 0;
  std::vector<double> ious_, det_areas_, gt_areas_;
  std::vector<uint8_t> outcomes_, det_ignore_, gt_ignore_, gt_crowd_;
  std::vector<int64_t> positives_;
  std::vector<RankedDetection> ranked_;
};

// All categories, large ones first: threads take the next one when they are done. The result does not depend
// on their number.
template <typename MakeStream>
void stream_categories(const StreamInputs& in, const PairTable& pairs, const CurveArrays& out,
                       const MakeStream& make_stream) {
  std::vector<int64_t> order(in.categories);
  std::iota(order.begin(), order.end(), 0);
  const auto size = [&](int64_t category) {
    return pairs.det_start[in.pair_start[category + 1]] - pairs.det_start[in.pair_start[category]];
  };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return size(a) > size(b); });
  std::atomic<int64_t> next{0};
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t first, int64_t last) {
    for (; first < last; ++first) {
      auto stream = make_stream();
      for (int64_t i = next++; i < in.categories; i = next++) stream.run(order[i], out);
    }
  });
}

}  // namespace mrb
