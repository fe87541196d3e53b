// What the CPU and CUDA kernels of the quadrant masks share: argument checks, probability, loss and slope of
// one pixel.
//
// The mask of an instance is sigmoid(coefficients of the grid cell . basis) inside its box and 0 outside;
// channel cell * K + k of the coefficients belongs to basis map k, grid cells count row by row
// (crop_split.h).
#pragma once

#include <cmath>

#include "bilinear.h"
#include "crop_split.h"
#include "vector_math.h"

namespace mrb {

inline void check_quadrants(const char* op, const at::Tensor& coefficients, const at::Tensor& basis,
                            const at::Tensor& boxes, int64_t grid_size) {
  check_grid_size(op, grid_size);
  check_shape(op, "coefficients", coefficients, {-1, -1}, "(n, grid_size * grid_size * K)");
  check_floating(op, "coefficients", coefficients);
  check_shape(op, "basis", basis, {-1, -1, -1}, "(K, H, W)");
  check_floating(op, "basis", basis);
  check_device(op, "basis", basis, "coefficients", coefficients);
  check_range(op, "K", basis.size(0), 1, INT32_MAX);
  check_range(op, "H", basis.size(1), 0, kMaxPlaneSide);
  check_range(op, "W", basis.size(2), 0, kMaxPlaneSide);
  TORCH_CHECK_VALUE(coefficients.size(1) == grid_size * grid_size * basis.size(0), op,
                    ": coefficients must have ", grid_size * grid_size * basis.size(0), " columns (",
                    grid_size, " x ", grid_size, " grid cells, ", basis.size(0), " basis maps), got ",
                    shape_text(coefficients));
  check_boxes(op, boxes, coefficients.size(0), "coefficients", coefficients);
}

// Values are computed in float32, or in float64 where an input is.
inline at::ScalarType wide_type(const at::Tensor& coefficients, const at::Tensor& basis) {
  const bool wide = coefficients.scalar_type() == at::kDouble || basis.scalar_type() == at::kDouble;
  return wide ? at::kDouble : at::kFloat;
}

inline void check_planes(const char* op, const char* name, const at::Tensor& planes,
                         const at::Tensor& coefficients, const at::Tensor& basis) {
  check_shape(op, name, planes, {coefficients.size(0), basis.size(1), basis.size(2)}, "(n, H, W)");
  check_dtype(op, name, planes, wide_type(coefficients, basis));
  check_device(op, name, planes, "coefficients", coefficients);
}

inline void check_mask_targets(const char* op, const at::Tensor& targets, const at::Tensor& target_index,
                               const at::Tensor& coefficients, const at::Tensor& basis) {
  check_shape(op, "targets", targets, {-1, basis.size(1), basis.size(2)}, "(m, H, W) like basis");
  TORCH_CHECK_TYPE(targets.scalar_type() == at::kBool || targets.scalar_type() == at::kByte, op,
                   ": targets must be bool or uint8, got ", targets.scalar_type());
  check_device(op, "targets", targets, "coefficients", coefficients);
  check_shape(op, "target_index", target_index, {coefficients.size(0)}, "(n,), one target per instance");
  check_dtype(op, "target_index", target_index, at::kLong);
  check_device(op, "target_index", target_index, "coefficients", coefficients);
}

inline void check_mask_loss_grad(const char* op, const at::Tensor& grad, const at::Tensor& coefficients,
                                 const at::Tensor& basis) {
  check_shape(op, "grad", grad, {coefficients.size(0)}, "(n,), one value per instance");
  check_dtype(op, "grad", grad, wide_type(coefficients, basis));
  check_device(op, "grad", grad, "coefficients", coefficients);
}

inline void check_assembly(const char* op, const at::Tensor& basis, int64_t resized_h, int64_t resized_w,
                           int64_t height, int64_t width, double threshold, double step_y, double step_x) {
  TORCH_CHECK_VALUE(basis.size(1) > 0 && basis.size(2) > 0, op, ": basis must have pixels, got ",
                    shape_text(basis));
  check_range(op, "resized_h", resized_h, 1, kMaxPlaneSide);
  check_range(op, "resized_w", resized_w, 1, kMaxPlaneSide);
  check_range(op, "height", height, 0, INT32_MAX);
  check_range(op, "width", width, 0, INT32_MAX);
  check_fraction(op, "threshold", threshold);
  for (const double step : {step_y, step_x}) {
    TORCH_CHECK_VALUE(step >= 0 && step <= kMaxPlaneSide, op,
                      ": steps must be pixels of the basis per resized pixel, 0 to ", kMaxPlaneSide, ", got ",
                      step);
  }
}

// Pixels of the plane per resized pixel, from the sizes unless it is given.
inline float resize_step(int64_t plane, int64_t resized, double step) {
  return step > 0 ? static_cast<float>(step) : resize_step(plane, resized);
}

// A NaN stays one.
template <typename T>
C10_HOST_DEVICE MRB_INLINE T probability_of(T x) {
  const bool above = x > T(0);
  const T e = exp_of_minus(above ? x : -x), near = T(1) / (T(1) + e);
  const T p = above ? near : e * near;
  return x == x ? p : x;
}

// Binary cross entropy of a probability; each logarithm ends at -100. parity: computed from the rounded p.
template <typename T>
C10_HOST_DEVICE MRB_INLINE T cross_entropy(T p, bool target) {
  const T fraction = target ? p : T(1) - p;
  const T rounding = target ? T(0) : (T(1) - fraction) - p;  // makes it log1p(-p) for small p
  const T logarithm = log_of_fraction(fraction) + rounding;
  return logarithm < T(-100) ? T(100) : -logarithm;
}

// Derivative of the cross entropy by x. parity: that of the logarithms is bounded, without regard to -100.
template <typename T>
C10_HOST_DEVICE MRB_INLINE T cross_entropy_slope(T p, bool target) {
  const T slope = p * (T(1) - p), min_slope = T(1e-12);
  return (p - (target ? T(1) : T(0))) / (slope > min_slope ? slope : min_slope) * slope;
}

}  // namespace mrb
