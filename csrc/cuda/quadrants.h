// What the CUDA kernels of the quadrant masks share: the arguments as they read them, and the soft masks.
#pragma once

#include "../quadrant_masks.h"
#include "launch.h"

namespace mrb {

template <typename T>
struct Quadrants {
  const T* coefficients;
  const T* basis;
  const float* boxes;  // (n, 4)
  int64_t instances, maps, height, width, grid_size;

  __host__ __device__ int64_t plane() const { return height * width; }
  __host__ __device__ int64_t pairs() const { return instances * grid_size * grid_size; }

  __device__ GridAxis columns(int64_t n) const { return GridAxis(boxes[4 * n], boxes[4 * n + 2], grid_size); }
  __device__ GridAxis rows(int64_t n) const {
    return GridAxis(boxes[4 * n + 1], boxes[4 * n + 3], grid_size);
  }

  // The grid cell of a pixel of the plane, -1 outside the box.
  __device__ int64_t cell(int64_t n, int64_t pixel) const {
    const int32_t column = columns(n).cell(pixel % width);
    if (column < 0) return -1;
    const int32_t row = rows(n).cell(pixel / width);
    return row < 0 ? -1 : row * grid_size + column;
  }

  __device__ const T* of(int64_t n, int64_t cell) const {
    return coefficients + (n * grid_size * grid_size + cell) * maps;
  }

  __device__ T probability(int64_t n, int64_t cell, int64_t pixel) const {
    const T* factors = of(n, cell);
    T sum = T(0);
    for (int64_t k = 0; k < maps; ++k) sum += factors[k] * basis[k * plane() + pixel];
    return probability_of(sum);
  }
};

// The tensors behind a Quadrants, in its type.
struct QuadrantTensors {
  at::Tensor coefficients, basis, boxes;
  int64_t grid_size;

  QuadrantTensors(const at::Tensor& c, const at::Tensor& b, const at::Tensor& box_rows, int64_t count,
                  at::ScalarType type)
      : coefficients(c.to(type).contiguous()),
        basis(b.to(type).contiguous()),
        boxes(box_rows.to(at::kFloat).contiguous()),
        grid_size(count) {}

  template <typename T>
  Quadrants<T> view() const {
    return {coefficients.const_data_ptr<T>(),
            basis.const_data_ptr<T>(),
            boxes.const_data_ptr<float>(),
            coefficients.size(0),
            basis.size(0),
            basis.size(1),
            basis.size(2),
            grid_size};
  }
};

// Soft masks of `total` / plane instances from `first` on.
template <typename T>
__global__ void soft_masks(Quadrants<T> q, int64_t first, int64_t total, T* out) {
  MRB_GRID_LOOP(i, total) {
    const int64_t n = first + i / q.plane(), pixel = i % q.plane(), cell = q.cell(n, pixel);
    out[i] = cell < 0 ? T(0) : q.probability(n, cell, pixel);
  }
}

}  // namespace mrb
