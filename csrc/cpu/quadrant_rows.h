// What the CPU kernels of the quadrant masks share: the borders of the grid cells of every box, the basis in
// the order in which they read it, and the arithmetic on one run of pixels of one row and one grid cell.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace mrb {

constexpr int64_t kRunLanes = 16;  // runs are processed in blocks of this many pixels

// Borders of the grid cells of every box along both axes: cell c of box i covers the pixels from borders[c]
// to borders[c + 1] of the plane.
class GridBorders {
 public:
  GridBorders(const at::Tensor& boxes, int64_t height, int64_t width, int64_t grid_size);

  const int32_t* columns(int64_t box) const { return columns_.data() + box * (grid_size + 1); }
  const int32_t* rows(int64_t box) const { return rows_.data() + box * (grid_size + 1); }

  const int64_t grid_size;

 private:
  std::vector<int32_t> columns_, rows_;
};

// Maps (K, H, W) as (H, K, pitch) of float or double: a row of all maps is contiguous, and a block of lanes
// that starts at any pixel of a row is inside the memory.
struct RowMajor {
  at::Tensor data;
  int64_t maps, height, width, pitch;

  static RowMajor zeros(int64_t maps, int64_t height, int64_t width, const at::TensorOptions& options);
  static RowMajor copy_of(const at::Tensor& maps, at::ScalarType type);
  at::Tensor to_maps(at::ScalarType type) const;

  template <typename T>
  T* row(int64_t y) const {
    return data.mutable_data_ptr<T>() + y * maps * pitch;
  }
};

// Size of a buffer for a run of `width` pixels, rounded up to a whole block.
inline int64_t padded_run(int64_t width) { return (width / kRunLanes + 1) * kRunLanes; }

// out = probabilities of a run; `basis` points at its first pixel in map 0. Whole blocks are written.
void run_probabilities(const float* coefficients, const float* basis, int64_t maps, int64_t pitch,
                       int64_t count, float* out);
void run_probabilities(const double* coefficients, const double* basis, int64_t maps, int64_t pitch,
                       int64_t count, double* out);

// Sum of the cross entropies of a run.
float run_cross_entropy(const float* p, const uint8_t* target, int64_t count);
double run_cross_entropy(const double* p, const uint8_t* target, int64_t count);

// p becomes grad times the slope of the cross entropy.
void run_cross_entropy_slopes(float grad, const uint8_t* target, int64_t count, float* p);
void run_cross_entropy_slopes(double grad, const uint8_t* target, int64_t count, double* p);

// slopes = grad p (1 - p).
void run_sigmoid_slopes(const float* grad, const float* p, int64_t count, float* slopes);
void run_sigmoid_slopes(const double* grad, const double* p, int64_t count, double* slopes);

// Adds the products of the slopes with the basis to sums[map][lane], and with the coefficients to the
// gradient of the basis.
void run_backward(const float* slopes, const float* coefficients, const float* basis, int64_t maps,
                  int64_t pitch, int64_t count, float* sums, float* basis_grad);
void run_backward(const double* slopes, const double* coefficients, const double* basis, int64_t maps,
                  int64_t pitch, int64_t count, double* sums, double* basis_grad);

}  // namespace mrb
