// What the CPU and CUDA kernels of crop_split and of the quadrant masks share: which grid cell of a box a
// pixel is in. Boxes are xyxy in pixels of the plane; a pixel is inside where x1 <= x < x2 and y1 <= y < y2.
#pragma once

#include <c10/macros/Macros.h>

#include <cmath>

#include "checks.h"

namespace mrb {

constexpr int64_t kMaxGridSize = 64;
constexpr int64_t kMaxPlaneSide = 1 << 24;  // whole numbers up to here are exact in float32

inline void check_grid_size(const char* op, int64_t grid_size) {
  check_range(op, "grid_size", grid_size, 1, kMaxGridSize);
}

inline void check_boxes(const char* op, const at::Tensor& boxes, int64_t count, const char* other_name,
                        const at::Tensor& other) {
  check_shape(op, "boxes", boxes, {count, 4}, "(n, 4), one box per instance");
  check_floating(op, "boxes", boxes);
  check_device(op, "boxes", boxes, other_name, other);
}

inline void check_crop_split(const char* op, const char* name, const at::Tensor& data,
                             const at::Tensor& boxes, int64_t grid_size) {
  check_grid_size(op, grid_size);
  check_shape(op, name, data, {grid_size * grid_size, -1, -1, -1}, "(grid_size * grid_size, H, W, n)");
  check_floating(op, name, data);
  check_range(op, "H", data.size(1), 0, kMaxPlaneSide);
  check_range(op, "W", data.size(2), 0, kMaxPlaneSide);
  check_boxes(op, boxes, data.size(3), name, data);
}

inline void check_crop_split_grad(const char* op, const at::Tensor& grad, const at::Tensor& boxes,
                                  int64_t grid_size) {
  check_grid_size(op, grid_size);
  check_shape(op, "grad", grad, {-1, -1, -1}, "(H, W, n)");
  check_floating(op, "grad", grad);
  check_boxes(op, boxes, grad.size(2), "grad", grad);
}

// One axis of a box, divided into grid grid_size. parity: the side grows by 0.1, which moves the splits a
// little, and is divided in float64; all else is float32.
struct GridAxis {
  float low, high, size;
  int32_t grid_size;

  C10_HOST_DEVICE GridAxis(float from, float to, int64_t count)
      : low(from),
        high(to),
        size(static_cast<float>((static_cast<double>(to - from) + 0.1) / static_cast<double>(count))),
        grid_size(static_cast<int32_t>(count)) {}

  // The grid cell of a pixel, counted from `low`; -1 outside, also for a NaN. Sides too long for the 0.1 to
  // count end in the last cell.
  C10_HOST_DEVICE int32_t cell(int64_t pixel) const {
    const float at = static_cast<float>(pixel);
    if (!(at >= low && at < high)) return -1;
    const float position = (at - low) / size;
    if (!(position >= 1.0f)) return 0;
    return position < static_cast<float>(grid_size) ? static_cast<int32_t>(position) : grid_size - 1;
  }

  // Cell c covers the pixels from border(c) to border(c + 1) of a plane with `side` pixels; all borders of an
  // empty box are 0.
  C10_HOST_DEVICE int64_t border(int32_t c, int64_t side) const {
    if (!(low < high)) return 0;
    int64_t first = first_pixel(low, side), last = first_pixel(high, side);
    while (first < last) {
      const int64_t middle = (first + last) / 2;
      if (cell(middle) < c) {
        first = middle + 1;
      } else {
        last = middle;
      }
    }
    return first;
  }

 private:
  C10_HOST_DEVICE static int64_t first_pixel(float from, int64_t side) {
    if (!(from > 0.0f)) return 0;
    return from < static_cast<float>(side) ? static_cast<int64_t>(std::ceil(from)) : side;
  }
};

}  // namespace mrb
