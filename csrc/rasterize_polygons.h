// What the CPU and CUDA kernels of rasterize_polygons share: argument checks, the crop window and the
// crossings of an edge with the columns of the raster.
//
// The raster is that of pycocotools: vertices are rounded on a grid five times finer, edges are
// walked on that grid, and where an edge passes the middle of a column it toggles all following pixels in
// column-major order. Here the crossings are computed per column instead of walking the edge, so that far
// away vertices cost nothing.
#pragma once

#include <c10/macros/Macros.h>

#include "checks.h"

namespace mrb {

constexpr int64_t kMaxRasterSide = 4096;
constexpr int64_t kFine = 5;  // parity: grid of pycocotools

inline void check_rasterize_polygons(const at::Tensor& coords, const at::Tensor& polygon_offsets,
                                     const at::Tensor& instance_offsets, const at::Tensor& instance_of_box,
                                     const at::Tensor& boxes, int64_t image_w, int64_t image_h,
                                     int64_t size) {
  const char* op = "rasterize_polygons";
  check_shape(op, "boxes", boxes, {-1, 4}, "(R, 4)");
  check_floating(op, "boxes", boxes);
  check_shape(op, "coords", coords, {-1, 2}, "(P, 2)");
  check_floating(op, "coords", coords);
  check_shape(op, "polygon_offsets", polygon_offsets, {-1}, "(K + 1,)");
  check_shape(op, "instance_offsets", instance_offsets, {-1}, "(I + 1,)");
  check_shape(op, "instance_of_box", instance_of_box, {boxes.size(0)}, "(R,), one instance per box");
  TORCH_CHECK_VALUE(polygon_offsets.size(0) > 0 && instance_offsets.size(0) > 0, op,
                    ": polygon_offsets and instance_offsets must hold at least one 0, got shapes ",
                    shape_text(polygon_offsets), " and ", shape_text(instance_offsets));
  check_dtype(op, "polygon_offsets", polygon_offsets, at::kLong);
  check_dtype(op, "instance_offsets", instance_offsets, at::kLong);
  check_dtype(op, "instance_of_box", instance_of_box, at::kLong);
  check_device(op, "coords", coords, "boxes", boxes);
  check_device(op, "polygon_offsets", polygon_offsets, "boxes", boxes);
  check_device(op, "instance_offsets", instance_offsets, "boxes", boxes);
  check_device(op, "instance_of_box", instance_of_box, "boxes", boxes);
  check_range(op, "image_w", image_w, 1, INT32_MAX);
  check_range(op, "image_h", image_h, 1, INT32_MAX);
  check_range(op, "size", size, 1, kMaxRasterSide);
}

// Window that is cropped and resized to the raster, in float32 as polygons are kept. parity: the published
// code clamps the origin into the image, but scales by the whole side of the box (at least one pixel),
// wherever it ends.
struct CropWindow {
  float x, y;
  float scale_x, scale_y;
  bool valid;

  C10_HOST_DEVICE CropWindow(const float* box, int64_t image_w, int64_t image_h, int64_t size) {
    valid = true;
    for (int i = 0; i < 4; ++i) valid = valid && box[i] == box[i];
    side(box[0], box[2], image_w, size, &x, &scale_x);
    side(box[1], box[3], image_h, size, &y, &scale_y);
  }

  C10_HOST_DEVICE static void side(double low, double high, int64_t image, int64_t size, float* origin,
                                   float* scale) {
    const double limit = static_cast<double>(image) - 1.0;
    const double from = low < 0.0 ? 0.0 : (low > limit ? limit : low);
    const double extent = high - low > 1.0 ? high - low : 1.0;
    *origin = static_cast<float>(from);
    *scale = static_cast<float>(static_cast<double>(size) / extent);
  }
};

// A coordinate on the fine grid of the raster, rounded as pycocotools does (half up, then toward
// zero).
C10_HOST_DEVICE inline int64_t fine_coordinate(double value) {
  const double fine = static_cast<double>(kFine) * value + 0.5;
  const double bound = 1073741824.0;
  if (!(fine > -bound)) return -static_cast<int64_t>(bound);  // also NaN
  return fine < bound ? static_cast<int64_t>(fine) : static_cast<int64_t>(bound);
}

// The same inside a crop window, which is computed in float32.
C10_HOST_DEVICE inline int64_t fine_coordinate(double value, float origin, float scale) {
  const float inside = (static_cast<float>(value) - origin) * scale;
  return fine_coordinate(static_cast<double>(inside));
}

// Row of the raster at which a crossing at fine height v toggles: from 0 to height, height being the next
// column's 0.
C10_HOST_DEVICE inline int64_t crossing_row(int64_t v, int64_t height) {
  const double row = (static_cast<double>(v) + 0.5) / static_cast<double>(kFine) - 0.5;
  const double limit = static_cast<double>(height);
  const double clamped = row < 0.0 ? 0.0 : (row > limit ? limit : row);
  const int64_t floor = static_cast<int64_t>(clamped);
  return static_cast<double>(floor) < clamped ? floor + 1 : floor;
}

// Fine coordinate of a line at step t.
C10_HOST_DEVICE inline int64_t along(int64_t start, double slope, int64_t t) {
  return static_cast<int64_t>(static_cast<double>(start) + slope * static_cast<double>(t) + 0.5);
}

// Calls emit(column, row) for every column of the raster (width x height) whose middle the edge from (xs, ys)
// to (xe, ye) passes: the step from fine column 5 X + 2 to 5 X + 3 or back.
template <typename Emit>
C10_HOST_DEVICE inline void edge_crossings(int64_t xs, int64_t ys, int64_t xe, int64_t ye, int64_t width,
                                           int64_t height, const Emit& emit) {
  if (xs == xe) return;
  const int64_t dx = xe > xs ? xe - xs : xs - xe;
  const int64_t dy = ye > ys ? ye - ys : ys - ye;
  const bool flat = dx >= dy;
  if (flat ? xs > xe : ys > ye) {
    const int64_t x = xs, y = ys;
    xs = xe, ys = ye, xe = x, ye = y;
  }
  const int64_t left = xs < xe ? xs : xe;
  const int64_t right = xs < xe ? xe : xs;
  const int64_t first = left > 2 ? (left + 2) / kFine : 0;        // 5 X + 2 >= left
  const int64_t past = right >= 3 ? (right - 3) / kFine + 1 : 0;  // 5 X + 3 <= right
  const double slope = flat ? static_cast<double>(ye - ys) / static_cast<double>(dx)
                            : static_cast<double>(xe - xs) / static_cast<double>(dy);
  for (int64_t column = first; column < (past < width ? past : width); ++column) {
    const int64_t before = column * kFine + 2;
    if (flat) {
      const int64_t t = before - xs;
      const int64_t here = along(ys, slope, t), next = along(ys, slope, t + 1);
      emit(column, crossing_row(here < next ? here : next, height));
    } else {
      // The last step t on this side of the middle: near the analytic solution, then exact by stepping.
      const bool increasing = slope > 0.0;
      const double guess = (static_cast<double>(before) + 0.5 - static_cast<double>(xs)) / slope;
      int64_t t = guess > 0.0 ? static_cast<int64_t>(guess) : 0;
      if (t > dy - 1) t = dy - 1;
      while (t > 0 && (along(xs, slope, t) > before) == increasing) --t;
      while (t < dy - 1 && (along(xs, slope, t + 1) > before) != increasing) ++t;
      emit(column, crossing_row(ys + t, height));
    }
  }
}

}  // namespace mrb
