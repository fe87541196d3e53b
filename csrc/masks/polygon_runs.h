// Runs of the union of polygons, as pycocotools rasterises them. Memory is bounded by the image, not by the
// length of an outline; an outline that no drawing has (kMaxCrossings) is refused.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "../evaluation/rle.h"
#include "../rasterize_polygons.h"

namespace mrb {

constexpr int64_t kMaxImageSide = 1 << 20;           // bounds the crossings of an edge
constexpr int64_t kMaxCrossings = int64_t{1} << 28;  // of the outlines of one mask with columns: seconds
constexpr size_t kFewCrossings = 4096;

using Interval = std::pair<uint32_t, uint32_t>;  // begin and end, which are at most kMaxMaskPixels

// Where the inside of a polygon begins and ends in column-major order; crossings at one pixel cancel in
// pairs. A list while they are few, then one bit per pixel.
class Toggles {
 public:
  void start(int64_t pixels) {
    pixels_ = pixels;
    limit_ = std::max(kFewCrossings, static_cast<size_t>(pixels / 64));
    list_.clear();
    bits_.clear();
  }

  void add(int64_t pixel) {
    if (bits_.empty() && list_.size() == limit_) {
      bits_.assign(pixels_ / 64 + 1, 0);
      for (uint32_t one : list_) flip(one);
      list_.clear();
    }
    if (bits_.empty()) {
      list_.push_back(static_cast<uint32_t>(pixel));
    } else {
      flip(pixel);
    }
  }

  void finish(std::vector<Interval>& intervals) {
    begin_ = -1;
    std::sort(list_.begin(), list_.end());
    for (size_t i = 0; i < list_.size(); ++i) {
      if (i + 1 < list_.size() && list_[i] == list_[i + 1]) {
        ++i;
      } else {
        pass(list_[i], intervals);
      }
    }
    for (size_t word = 0; word < bits_.size(); ++word) {
      for (uint64_t rest = bits_[word]; rest != 0; rest &= rest - 1) {
        pass(static_cast<int64_t>(word) * 64 + __builtin_ctzll(rest), intervals);
      }
    }
    if (begin_ >= 0 && begin_ < pixels_) pass(pixels_, intervals);
  }

 private:
  void flip(int64_t pixel) { bits_[pixel / 64] ^= uint64_t{1} << (pixel % 64); }

  void pass(int64_t pixel, std::vector<Interval>& intervals) {
    if (begin_ < 0) {
      begin_ = pixel;
    } else {
      intervals.emplace_back(static_cast<uint32_t>(begin_), static_cast<uint32_t>(pixel));
      begin_ = -1;
    }
  }

  int64_t pixels_ = 0, begin_ = -1;
  size_t limit_ = 0;
  std::vector<uint32_t> list_;
  std::vector<uint64_t> bits_;
};

// Sorts intervals and joins those that meet.
inline void unite(std::vector<Interval>& intervals) {
  std::sort(intervals.begin(), intervals.end());
  size_t kept = 0;
  for (const Interval& next : intervals) {
    if (kept > 0 && next.first <= intervals[kept - 1].second) {
      intervals[kept - 1].second = std::max(intervals[kept - 1].second, next.second);
    } else {
      intervals[kept++] = next;
    }
  }
  intervals.resize(kept);
}

// One mask after another; buffers are kept.
class PolygonRasterizer {
 public:
  // Starts a mask; false for an image of an impossible size.
  bool begin(int64_t height, int64_t width) {
    height_ = height, width_ = width;
    crossings_ = 0, united_ = 0;
    intervals_.clear();
    return height > 0 && width > 0 && height <= kMaxImageSide && width <= kMaxImageSide &&
           height * width <= kMaxMaskPixels;
  }

  // Adds a polygon of `count` points x, y; false where the outlines of the mask cross too many columns.
  bool add(const double* points, int64_t count) {
    if (count < 3) return true;  // encloses nothing
    toggles_.start(height_ * width_);
    const auto emit = [&](int64_t column, int64_t row) {
      ++crossings_;
      toggles_.add(column * height_ + row);
    };
    int64_t x = fine_coordinate(points[2 * count - 2]), y = fine_coordinate(points[2 * count - 1]);
    for (int64_t p = 0; p < count; ++p) {
      const int64_t next_x = fine_coordinate(points[2 * p]), next_y = fine_coordinate(points[2 * p + 1]);
      edge_crossings(x, y, next_x, next_y, width_, height_, emit);
      if (crossings_ > kMaxCrossings) return false;
      x = next_x, y = next_y;
    }
    toggles_.finish(intervals_);
    if (intervals_.size() > 2 * united_ + kFewCrossings) {
      unite(intervals_);
      united_ = intervals_.size();
    }
    return true;
  }

  void finish(Runs& runs) {
    unite(intervals_);
    runs.bounds.clear();
    runs.area = 0;
    for (const auto& [begin, end] : intervals_) {
      runs.bounds.push_back(begin);
      runs.bounds.push_back(end);
      runs.area += end - begin;
    }
  }

 private:
  int64_t height_ = 0, width_ = 0, crossings_ = 0;
  size_t united_ = 0;
  Toggles toggles_;
  std::vector<Interval> intervals_;
};

}  // namespace mrb
