// Assignment of boxes to FPN levels, shared by the CPU and CUDA kernels: argument checks and the level of a
// box.
#pragma once

#include <c10/macros/Macros.h>

#include <cmath>

#include "checks.h"

namespace mrb {

constexpr int64_t kMaxLevels = 16;
constexpr int64_t kMaxLevelNumber = 64;

// FPN level of a box (Lin et al. 2017, equation 1), computed in float32 on every device, counted from the
// first level of the feature pyramid. The area has the inclusive +1 convention. A box whose area is negative
// or NaN is assigned to the first level.
struct LevelRule {
  int32_t first, count, canonical_level;
  float canonical_size;

  C10_HOST_DEVICE int32_t operator()(float x1, float y1, float x2, float y2) const {
    const float area = (x2 - x1 + 1.0f) * (y2 - y1 + 1.0f);
    const float relative = sqrtf(area) / canonical_size + 1e-6f;
    // The rounded double logarithm is the same value on every processor, which a float32 logarithm is not.
    const float log = static_cast<float>(log2(static_cast<double>(relative)));
    const float level = floorf(static_cast<float>(canonical_level) + log) - static_cast<float>(first);
    if (!(level > 0.0f)) return 0;
    const float last = static_cast<float>(count - 1);
    return static_cast<int32_t>(level < last ? level : last);
  }
};

inline LevelRule make_level_rule(const char* op, int64_t first_level, int64_t levels, int64_t canonical_level,
                                 double canonical_size) {
  check_range(op, "first_level", first_level, -kMaxLevelNumber, kMaxLevelNumber);
  check_range(op, "canonical_level", canonical_level, -kMaxLevelNumber, kMaxLevelNumber);
  check_range(op, "the number of levels", levels, 1, kMaxLevels);
  const float size = static_cast<float>(canonical_size);
  TORCH_CHECK_VALUE(std::isfinite(size) && size > 0.0f, op,
                    ": canonical_size must be finite and above 0, got ", canonical_size);
  return {static_cast<int32_t>(first_level), static_cast<int32_t>(levels),
          static_cast<int32_t>(canonical_level), size};
}

inline void check_fpn_levels(const at::Tensor& boxes) {
  check_shape("fpn_levels", "boxes", boxes, {-1, 4}, "(N, 4)");
  check_floating("fpn_levels", "boxes", boxes);
}

// int32 (N,): the level of each row of `boxes`, (N, 4), or (N, 5) with an image index first.
at::Tensor assign_levels_cuda(const at::Tensor& boxes, const LevelRule& rule);

}  // namespace mrb
