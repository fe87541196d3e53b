// IoU of the detections and the ground truth of one (image, category) pair, as boxes or as masks. Equal to
// pycocotools to the bit: the same sums and quotients in float64.
#pragma once

#include <atomic>
#include <cmath>
#include <vector>

#include "../records/record_masks.h"
#include "rle.h"

namespace mrb {

// x, y, width, height, without an inclusive + 1; a crowd counts against the detection's area alone.
inline double iou_of_boxes(const double* det, const double* gt, bool crowd) {
  const double w = std::fmin(det[2] + det[0], gt[2] + gt[0]) - std::fmax(det[0], gt[0]);
  if (w <= 0) return 0.0;
  const double h = std::fmin(det[3] + det[1], gt[3] + gt[1]) - std::fmax(det[1], gt[1]);
  if (h <= 0) return 0.0;
  const double intersection = w * h, area = det[2] * det[3];
  return intersection / (crowd ? area : area + gt[2] * gt[3] - intersection);
}

inline double iou_of_masks(const Runs& det, const Runs& gt, bool crowd) {
  const int64_t intersection = intersection_area(det, gt);
  if (intersection == 0) return 0.0;
  const int64_t union_area = crowd ? det.area : det.area + gt.area - intersection;
  return static_cast<double>(intersection) / static_cast<double>(union_area);
}

// The minimum of values that several threads give.
class FirstBad {
 public:
  void add(int64_t index) {
    int64_t seen = first_.load();
    while (index < seen && !first_.compare_exchange_weak(seen, index)) {
    }
  }
  int64_t value() const { return first_.load() == INT64_MAX ? -1 : first_.load(); }

 private:
  std::atomic<int64_t> first_{INT64_MAX};
};

// Boxes (D, 4) and (G, 4).
struct BoxSimilarity {
  const double *det_boxes, *gt_boxes;

  // Per thread: det and gt are rows of the boxes.
  struct Worker {
    const BoxSimilarity& of;

    void run(const int64_t* dets, int64_t num_dets, const int64_t* gts, int64_t num_gts, const bool* crowd,
             double* ious) {
      for (int64_t d = 0; d < num_dets; ++d) {
        for (int64_t g = 0; g < num_gts; ++g) {
          *ious++ = iou_of_boxes(of.det_boxes + 4 * dets[d], of.gt_boxes + 4 * gts[g], crowd[g]);
        }
      }
    }
  };
};

// Detections as run lengths; ground truth as records, which are rasterised when a detection is compared with
// them.
struct MaskSimilarity {
  RleTable dets;
  RecordTable gts;
  FirstBad bad_det, bad_gt;

  class Worker {
   public:
    explicit Worker(MaskSimilarity& of) : of_(of) {}

    void run(const int64_t* dets, int64_t num_dets, const int64_t* gts, int64_t num_gts, const bool* crowd,
             double* ious) {
      if (static_cast<int64_t>(truths_.size()) < num_gts) truths_.resize(num_gts);
      for (int64_t g = 0; g < num_gts; ++g) {
        if (!truths_[g].read(of_.gts, gts[g])) of_.bad_gt.add(gts[g]);
      }
      for (int64_t d = 0; d < num_dets; ++d) {
        const RleText text = of_.dets[dets[d]];
        if (det_.decode(text) != kRleValid) of_.bad_det.add(dets[d]);
        for (int64_t g = 0; g < num_gts; ++g) {
          // parity: masks of different sizes have the IoU -1.
          const bool same = text.height == truths_[g].height && text.width == truths_[g].width;
          *ious++ = same ? iou_of_masks(det_, truths_[g].runs, crowd[g]) : -1.0;
        }
      }
    }

   private:
    MaskSimilarity& of_;
    Runs det_;
    std::vector<RecordMask> truths_;
  };
};

}  // namespace mrb
