#include "quadrant_rows.h"

#include <ATen/ops/zeros.h>

#include "../multiversion.h"
#include "../quadrant_masks.h"
#include "vec.h"

namespace mrb {
namespace {

void fill_borders(const GridAxis& axis, int64_t side, int32_t* borders) {
  for (int32_t c = 0; c <= axis.grid_size; ++c) borders[c] = static_cast<int32_t>(axis.border(c, side));
}

template <typename T>
using Block = Vec<T, kRunLanes>;

template <typename T>
MRB_INLINE Block<T>& block_at(T* data) {
  return *reinterpret_cast<Block<T>*>(data);
}

template <typename T>
MRB_INLINE const Block<T>& block_at(const T* data) {
  return *reinterpret_cast<const Block<T>*>(data);
}

// `blocks` blocks side by side, so that their sums are independent.
template <int blocks, typename T>
MRB_INLINE void logits(const T* coefficients, const T* basis, int64_t maps, int64_t pitch, T* out) {
  Block<T> sums[blocks] = {};
  for (int64_t k = 0; k < maps; ++k) {
    for (int b = 0; b < blocks; ++b) sums[b] += coefficients[k] * block_at(basis + k * pitch + b * kRunLanes);
  }
  for (int b = 0; b < blocks; ++b) block_at(out + b * kRunLanes) = sums[b];
}

template <typename T>
MRB_INLINE void probabilities(const T* coefficients, const T* basis, int64_t maps, int64_t pitch,
                              int64_t count, T* MRB_RESTRICT out) {
  int64_t i = 0;
  for (; i + kRunLanes < count; i += 2 * kRunLanes) logits<2>(coefficients, basis + i, maps, pitch, out + i);
  for (; i < count; i += kRunLanes) logits<1>(coefficients, basis + i, maps, pitch, out + i);
  for (int64_t j = 0; j < i; ++j) out[j] = probability_of(out[j]);
}

template <typename T>
MRB_INLINE T cross_entropies(const T* MRB_RESTRICT p, const uint8_t* MRB_RESTRICT target, int64_t count) {
  T lanes[kRunLanes] = {};
  const int64_t whole = count / kRunLanes * kRunLanes;
  for (int64_t i = 0; i < whole; i += kRunLanes) {
    for (int64_t j = 0; j < kRunLanes; ++j) lanes[j] += cross_entropy(p[i + j], target[i + j] != 0);
  }
  for (int64_t i = whole; i < count; ++i) lanes[i - whole] += cross_entropy(p[i], target[i] != 0);
  T sum = T(0);
  for (T lane : lanes) sum += lane;
  return sum;
}

template <typename T>
MRB_INLINE void cross_entropy_slopes(T grad, const uint8_t* MRB_RESTRICT target, int64_t count,
                                     T* MRB_RESTRICT p) {
  for (int64_t i = 0; i < count; ++i) p[i] = grad * cross_entropy_slope(p[i], target[i] != 0);
}

template <typename T>
MRB_INLINE void sigmoid_slopes(const T* MRB_RESTRICT grad, const T* MRB_RESTRICT p, int64_t count,
                               T* MRB_RESTRICT slopes) {
  for (int64_t i = 0; i < count; ++i) slopes[i] = grad[i] * (T(1) - p[i]) * p[i];
}

template <typename T>
MRB_INLINE void backward(const T* MRB_RESTRICT slopes, const T* MRB_RESTRICT coefficients,
                         const T* MRB_RESTRICT basis, int64_t maps, int64_t pitch, int64_t count,
                         T* MRB_RESTRICT sums, T* MRB_RESTRICT basis_grad) {
  int64_t i = 0;
  for (; i + kRunLanes <= count; i += kRunLanes) {
    const Block<T> slope = block_at(slopes + i);
    for (int64_t k = 0; k < maps; ++k) {
      block_at(sums + k * kRunLanes) += slope * block_at(basis + k * pitch + i);
      block_at(basis_grad + k * pitch + i) += coefficients[k] * slope;
    }
  }
  for (int64_t k = 0; i < count && k < maps; ++k) {
    for (int64_t j = 0; j < count - i; ++j) {
      sums[k * kRunLanes + j] += slopes[i + j] * basis[k * pitch + i + j];
      basis_grad[k * pitch + i + j] += coefficients[k] * slopes[i + j];
    }
  }
}

}  // namespace

GridBorders::GridBorders(const at::Tensor& boxes, int64_t height, int64_t width, int64_t grid_size)
    : grid_size(grid_size),
      columns_(boxes.size(0) * (grid_size + 1)),
      rows_(boxes.size(0) * (grid_size + 1)) {
  const at::Tensor box_rows = boxes.to(at::kFloat).contiguous();
  const float* box = box_rows.const_data_ptr<float>();
  for (int64_t i = 0; i < boxes.size(0); ++i, box += 4) {
    fill_borders(GridAxis(box[0], box[2], grid_size), width, columns_.data() + i * (grid_size + 1));
    fill_borders(GridAxis(box[1], box[3], grid_size), height, rows_.data() + i * (grid_size + 1));
  }
}

RowMajor RowMajor::zeros(int64_t maps, int64_t height, int64_t width, const at::TensorOptions& options) {
  const int64_t pitch = width + kRunLanes;
  return {at::zeros({height, maps, pitch}, options), maps, height, width, pitch};
}

RowMajor RowMajor::copy_of(const at::Tensor& maps, at::ScalarType type) {
  RowMajor result = zeros(maps.size(0), maps.size(1), maps.size(2), maps.options().dtype(type));
  result.data.narrow(2, 0, result.width).copy_(maps.transpose(0, 1));
  return result;
}

at::Tensor RowMajor::to_maps(at::ScalarType type) const {
  return data.narrow(2, 0, width).transpose(0, 1).to(type).contiguous();
}

// One function per type: templates cannot have versions per processor.
MRB_MULTIVERSION void run_probabilities(const float* coefficients, const float* basis, int64_t maps,
                                        int64_t pitch, int64_t count, float* out) {
  probabilities(coefficients, basis, maps, pitch, count, out);
}

MRB_MULTIVERSION void run_probabilities(const double* coefficients, const double* basis, int64_t maps,
                                        int64_t pitch, int64_t count, double* out) {
  probabilities(coefficients, basis, maps, pitch, count, out);
}

MRB_MULTIVERSION float run_cross_entropy(const float* p, const uint8_t* target, int64_t count) {
  return cross_entropies(p, target, count);
}

MRB_MULTIVERSION double run_cross_entropy(const double* p, const uint8_t* target, int64_t count) {
  return cross_entropies(p, target, count);
}

MRB_MULTIVERSION void run_cross_entropy_slopes(float grad, const uint8_t* target, int64_t count, float* p) {
  cross_entropy_slopes(grad, target, count, p);
}

MRB_MULTIVERSION void run_cross_entropy_slopes(double grad, const uint8_t* target, int64_t count, double* p) {
  cross_entropy_slopes(grad, target, count, p);
}

MRB_MULTIVERSION void run_sigmoid_slopes(const float* grad, const float* p, int64_t count, float* slopes) {
  sigmoid_slopes(grad, p, count, slopes);
}

MRB_MULTIVERSION void run_sigmoid_slopes(const double* grad, const double* p, int64_t count, double* slopes) {
  sigmoid_slopes(grad, p, count, slopes);
}

MRB_MULTIVERSION void run_backward(const float* slopes, const float* coefficients, const float* basis,
                                   int64_t maps, int64_t pitch, int64_t count, float* sums,
                                   float* basis_grad) {
  backward(slopes, coefficients, basis, maps, pitch, count, sums, basis_grad);
}

MRB_MULTIVERSION void run_backward(const double* slopes, const double* coefficients, const double* basis,
                                   int64_t maps, int64_t pitch, int64_t count, double* sums,
                                   double* basis_grad) {
  backward(slopes, coefficients, basis, maps, pitch, count, sums, basis_grad);
}

}  // namespace mrb
