// What the CPU and CUDA kernels of deform_psroi_pooling share: argument checks and where a bin samples (Dai
// et al. 2017, section 2.2).
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Macros.h>

#include <array>
#include <cmath>
#include <optional>
#include <tuple>

#include "bilinear.h"
#include "checks.h"

namespace mrb {

// Arguments of one call. Bin (row, column) of output channel o reads channel (o * groups + g_row) * groups +
// g_column of the map, with g = bin * groups / pooled.
struct PsRoiArgs {
  int64_t images, channels, height, width, rois;
  int64_t out_dim, groups, pooled, parts, samples, classes;
  double scale, trans_std;
  bool has_trans;

  C10_HOST_DEVICE int64_t channels_per_class() const { return out_dim / classes; }
};

constexpr int64_t kMaxSide = 1 << 10;  // bins, parts, groups, samples per axis

inline PsRoiArgs check_psroi(const char* op, const at::Tensor& input, const at::Tensor& rois,
                             const std::optional<at::Tensor>& trans, double spatial_scale, int64_t output_dim,
                             int64_t group_size, int64_t pooled_size, int64_t part_size,
                             int64_t sample_per_part, double trans_std) {
  check_range(op, "output_dim", output_dim, 1, INT32_MAX);
  check_range(op, "group_size", group_size, 1, kMaxSide);
  check_range(op, "pooled_size", pooled_size, 1, kMaxSide);
  check_range(op, "part_size", part_size, 1, kMaxSide);
  check_range(op, "sample_per_part", sample_per_part, 1, kMaxSide);
  TORCH_CHECK_VALUE(std::isfinite(spatial_scale) && spatial_scale > 0.0, op,
                    ": spatial_scale must be finite and above 0, got ", spatial_scale);
  TORCH_CHECK_VALUE(std::isfinite(trans_std), op, ": trans_std must be finite, got ", trans_std);
  check_shape(op, "input", input, {-1, output_dim * group_size * group_size, -1, -1},
              "(B, output_dim * group_size^2, H, W)");
  check_floating(op, "input", input);
  TORCH_CHECK_VALUE(input.size(2) > 0 && input.size(3) > 0, op,
                    ": input must have a height and width of at least 1, got ", shape_text(input));
  TORCH_CHECK_VALUE(input.size(2) < INT32_MAX && input.size(3) < INT32_MAX, op,
                    ": input must have fewer than 2^31 rows and columns, got ", shape_text(input));
  check_shape(op, "rois", rois, {-1, 5}, "(R, 5): image index, x1, y1, x2, y2");
  check_floating(op, "rois", rois);
  check_device(op, "rois", rois, "input", input);
  PsRoiArgs pool{input.size(0),
                 input.size(1),
                 input.size(2),
                 input.size(3),
                 rois.size(0),
                 output_dim,
                 group_size,
                 pooled_size,
                 part_size,
                 sample_per_part,
                 1,
                 spatial_scale,
                 trans_std,
                 trans.has_value()};
  if (!trans.has_value()) return pool;
  check_shape(op, "trans", *trans, {rois.size(0), -1, part_size, part_size},
              "(R, 2 * classes, part_size, part_size)");
  check_floating(op, "trans", *trans);
  check_device(op, "trans", *trans, "input", input);
  pool.classes = trans->size(1) / 2;
  TORCH_CHECK_VALUE(pool.classes > 0 && trans->size(1) % 2 == 0 && output_dim % pool.classes == 0, op,
                    ": trans must have two channels for each of as many classes as divide output_dim (",
                    output_dim, "), got ", shape_text(*trans));
  return pool;
}

inline void check_psroi_grad(const char* op, const PsRoiArgs& pool, const at::Tensor& input,
                             const at::Tensor& grad, const std::array<bool, 2>& needed) {
  check_shape(op, "grad", grad, {pool.rois, pool.out_dim, pool.pooled, pool.pooled},
              "(R, output_dim, pooled_size, pooled_size)");
  check_dtype(op, "grad", grad, input.scalar_type());
  check_device(op, "grad", grad, "input", input);
  TORCH_CHECK_VALUE(pool.has_trans || !needed[1], op, ": there is no trans to have a gradient");
}

// parity: edges are rounded to whole pixels (half away from zero) before scaling, and a side is at least 0.1
// pixels.
template <typename T>
struct PsRoiBox {
  T left, top, width, height;
  bool finite;

  C10_HOST_DEVICE PsRoiBox(const T* roi, T scale) {
    left = round(roi[1]) * scale - T(.5);
    top = round(roi[2]) * scale - T(.5);
    width = (round(roi[3]) + T(1)) * scale - T(.5) - left;
    height = (round(roi[4]) + T(1)) * scale - T(.5) - top;
    finite = left - left == T(0) && top - top == T(0) && width - width == T(0) && height - height == T(0);
    width = width > T(.1) ? width : T(.1);
    height = height > T(.1) ? height : T(.1);
  }
};

// Samples of one bin along one axis. parity: at start + i * step, not in the middle of their part; see
// bilinear.h for those that count.
template <typename T>
struct PsAxis {
  T start, step;

  C10_HOST_DEVICE PsAxis(T edge, T side, int64_t bin, int64_t bins, int64_t samples, T shift) {
    const T size = side / static_cast<T>(bins);
    start = static_cast<T>(bin) * size + edge + shift * side;
    step = size / static_cast<T>(samples);
  }

  C10_HOST_DEVICE T position(int64_t i) const { return start + static_cast<T>(i) * step; }
};

// Index of the part of the offsets, or of the group of channels, that a bin belongs to.
C10_HOST_DEVICE inline int64_t psroi_part(int64_t bin, int64_t parts, int64_t bins) {
  return bin * parts / bins;
}

}  // namespace mrb
