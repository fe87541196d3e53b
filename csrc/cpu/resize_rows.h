// Bilinear resizing on the CPU, a row at a time: source rows are resized to the target columns once, and
// every target row blends two of them and is compared with a threshold, all along contiguous memory.
#pragma once

#include <cstdint>
#include <vector>

#include "../bilinear.h"
#include "../multiversion.h"

namespace mrb {

// Taps of the target pixels [begin, end) of one axis.
struct ResizeTaps {
  std::vector<int32_t> low, high;
  std::vector<float> weight;

  // `source` pixels, `step` of them per target pixel.
  void fill(int64_t source, float step, int64_t begin, int64_t end) {
    low.resize(end - begin);
    high.resize(end - begin);
    weight.resize(end - begin);
    for (int64_t i = begin; i < end; ++i) {
      const BilinearTap<float> tap = resize_tap(i, source, step);
      low[i - begin] = static_cast<int32_t>(tap.low);
      high[i - begin] = static_cast<int32_t>(tap.high);
      weight[i - begin] = tap.weight;
    }
  }
};

MRB_MULTIVERSION inline void resize_row(const float* MRB_RESTRICT source, const int32_t* MRB_RESTRICT low,
                                        const int32_t* MRB_RESTRICT high, const float* MRB_RESTRICT weight,
                                        int64_t count, float* MRB_RESTRICT out) {
  for (int64_t i = 0; i < count; ++i)
    out[i] = (1.0f - weight[i]) * source[low[i]] + weight[i] * source[high[i]];
}

MRB_MULTIVERSION inline void blend_rows(const float* MRB_RESTRICT above, const float* MRB_RESTRICT below,
                                        float weight, float threshold, int64_t count,
                                        uint8_t* MRB_RESTRICT out) {
  const float rest = 1.0f - weight;
  for (int64_t i = 0; i < count; ++i) out[i] = rest * above[i] + weight * below[i] > threshold;
}

// The two resized rows in use. Target rows are visited from top to bottom, so the lower one often becomes the
// upper one.
struct ResizedRows {
  std::vector<float> above, below;
  int64_t above_row = -1, below_row = -1;

  void reset(int64_t count) {
    above.resize(count);
    below.resize(count);
    above_row = below_row = -1;
  }

  // Brings source rows `low` and `high` into above and below; compute(row, out) resizes one.
  template <typename Compute>
  void load(int64_t low, int64_t high, const Compute& compute) {
    if (above_row != low) {
      if (below_row == low) {
        std::swap(above, below);
        std::swap(above_row, below_row);
      } else {
        compute(low, above.data());
        above_row = low;
      }
    }
    if (below_row != high) {
      compute(high, below.data());
      below_row = high;
    }
  }
};

}  // namespace mrb
