// Quadrant masks and their loss on the CPU. The plane is cut into strips of rows, which are processed in
// parallel, each for all instances, while its part of the basis is in the cache. A strip alone writes its
// rows of the masks and of the gradient of the basis; sums per instance are added strip by strip. Strips
// depend on the size of the plane only, so results are the same for any number of threads.
#include "../quadrant_masks.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "../kernel_guard.h"
#include "quadrant_rows.h"

namespace mrb {
namespace {

constexpr int64_t kMinStripRows = 8;
constexpr int64_t kMaxStrips = 32;

// The part of a grid cell of an instance that is in one strip.
struct Patch {
  int64_t instance, cell;
  int64_t first_row, last_row;
  int64_t column, count;
};

struct Strips {
  int64_t height, rows, count;

  explicit Strips(int64_t plane_height)
      : height(plane_height),
        rows(std::max(kMinStripRows, (plane_height + kMaxStrips - 1) / kMaxStrips)),
        count((plane_height + rows - 1) / rows) {}

  // Calls visit(patch) for all patches of strip `s`, instance by instance.
  template <typename Visit>
  void walk(int64_t s, const GridBorders& borders, int64_t instances, const Visit& visit) const {
    const int64_t grid_size = borders.grid_size, begin = s * rows, end = std::min(height, begin + rows);
    for (int64_t i = 0; i < instances; ++i) {
      const int32_t *y = borders.rows(i), *x = borders.columns(i);
      if (y[0] >= end || y[grid_size] <= begin) continue;
      for (int64_t r = 0; r < grid_size; ++r) {
        const int64_t first = std::max<int64_t>(y[r], begin), last = std::min<int64_t>(y[r + 1], end);
        for (int64_t c = 0; c < grid_size && first < last; ++c) {
          if (x[c] < x[c + 1]) visit(Patch{i, r * grid_size + c, first, last, x[c], x[c + 1] - x[c]});
        }
      }
    }
  }
};

// The arguments as the kernels read them.
struct Quadrants {
  at::Tensor coefficients;
  RowMajor basis;
  GridBorders borders;
  Strips strips;

  Quadrants(const at::Tensor& c, const at::Tensor& b, const at::Tensor& boxes, int64_t grid_size)
      : coefficients(c.to(wide_type(c, b)).contiguous()),
        basis(RowMajor::copy_of(b, wide_type(c, b))),
        borders(boxes, b.size(1), b.size(2), grid_size),
        strips(b.size(1)) {}

  int64_t instances() const { return coefficients.size(0); }
  int64_t plane() const { return basis.height * basis.width; }
  int64_t pixel(const Patch& patch, int64_t row) const {
    return patch.instance * plane() + row * basis.width + patch.column;
  }

  template <typename T>
  const T* of(const Patch& patch) const {
    return coefficients.const_data_ptr<T>() + patch.instance * coefficients.size(1) + patch.cell * basis.maps;
  }

  template <typename T>
  void probabilities(const Patch& patch, int64_t row, T* out) const {
    run_probabilities(of<T>(patch), basis.row<T>(row) + patch.column, basis.maps, basis.pitch, patch.count,
                      out);
  }

  template <typename Work>
  void in_strips(const Work& work) const {
    at::parallel_for(0, strips.count, 1, [&](int64_t first, int64_t last) {
      for (int64_t s = first; s < last; ++s) work(s);
    });
  }
};

// The target mask of each instance, row by row.
struct Targets {
  at::Tensor planes, index;

  Targets(const char* op, const at::Tensor& targets, const at::Tensor& target_index)
      : planes(targets.contiguous()), index(target_index.contiguous()) {
    const int64_t* data = index.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < index.numel(); ++i) {
      TORCH_CHECK_VALUE(data[i] >= 0 && data[i] < targets.size(0), op, ": target_index[", i,
                        "] must be from 0 to ", targets.size(0) - 1, ", got ", data[i]);
    }
  }

  const uint8_t* run(const Patch& patch, int64_t row) const {
    const int64_t n = index.const_data_ptr<int64_t>()[patch.instance];
    const auto* data = static_cast<const uint8_t*>(planes.const_data_ptr());
    return data + (n * planes.size(1) + row) * planes.size(2) + patch.column;
  }
};

// Gradients of coefficients and basis, from the slopes that slopes(patch, row, out) gives.
template <typename T, typename Slopes>
std::tuple<at::Tensor, at::Tensor> gradients(const Quadrants& q, at::ScalarType coefficients_type,
                                             at::ScalarType basis_type, const Slopes& slopes) {
  const int64_t maps = q.basis.maps, instances = q.instances(), channels = q.coefficients.size(1);
  const RowMajor basis_grad = RowMajor::zeros(maps, q.basis.height, q.basis.width, q.basis.data.options());
  const at::Tensor parts = at::zeros({q.strips.count, instances, channels}, q.coefficients.options());
  q.in_strips([&](int64_t s) {
    std::vector<T> run(padded_run(q.basis.width)), sums(maps * kRunLanes);
    T* part = parts.mutable_data_ptr<T>() + s * instances * channels;
    q.strips.walk(s, q.borders, instances, [&](const Patch& patch) {
      std::fill(sums.begin(), sums.end(), T(0));
      for (int64_t y = patch.first_row; y < patch.last_row; ++y) {
        slopes(patch, y, run.data());
        run_backward(run.data(), q.of<T>(patch), q.basis.row<T>(y) + patch.column, maps, q.basis.pitch,
                     patch.count, sums.data(), basis_grad.row<T>(y) + patch.column);
      }
      T* to = part + patch.instance * channels + patch.cell * maps;
      for (int64_t k = 0; k < maps; ++k) {
        for (int64_t lane = 0; lane < kRunLanes; ++lane) to[k] += sums[k * kRunLanes + lane];
      }
    });
  });
  const at::Tensor coefficients_grad = at::zeros_like(q.coefficients);
  T* to = coefficients_grad.mutable_data_ptr<T>();
  const T* from = parts.const_data_ptr<T>();
  const int64_t values = instances * channels;
  for (int64_t s = 0; s < q.strips.count; ++s, from += values) {
    for (int64_t i = 0; i < values; ++i) to[i] += from[i];
  }
  return {coefficients_grad.to(coefficients_type), basis_grad.to_maps(basis_type)};
}

at::Tensor quadrant_masks(const at::Tensor& coefficients, const at::Tensor& basis, const at::Tensor& boxes,
                          int64_t grid_size) {
  check_quadrants("quadrant_masks", coefficients, basis, boxes, grid_size);
  const KernelGuard kernel_guard;
  const Quadrants q(coefficients, basis, boxes, grid_size);
  const at::Tensor masks =
      at::zeros({q.instances(), q.basis.height, q.basis.width}, q.coefficients.options());
  AT_DISPATCH_FLOATING_TYPES(masks.scalar_type(), "quadrant_masks", [&] {
    scalar_t* out = masks.mutable_data_ptr<scalar_t>();
    q.in_strips([&](int64_t s) {
      std::vector<scalar_t> run(padded_run(q.basis.width));
      q.strips.walk(s, q.borders, q.instances(), [&](const Patch& patch) {
        for (int64_t y = patch.first_row; y < patch.last_row; ++y) {
          q.probabilities(patch, y, run.data());
          std::copy_n(run.data(), patch.count, out + q.pixel(patch, y));
        }
      });
    });
  });
  return masks;
}

std::tuple<at::Tensor, at::Tensor> quadrant_masks_backward(const at::Tensor& grad, const at::Tensor& masks,
                                                           const at::Tensor& coefficients,
                                                           const at::Tensor& basis, const at::Tensor& boxes,
                                                           int64_t grid_size) {
  constexpr const char* op = "quadrant_masks_backward";
  check_quadrants(op, coefficients, basis, boxes, grid_size);
  check_planes(op, "grad", grad, coefficients, basis);
  check_planes(op, "masks", masks, coefficients, basis);
  const KernelGuard kernel_guard;
  const Quadrants q(coefficients, basis, boxes, grid_size);
  const at::Tensor above = grad.contiguous(), p = masks.contiguous();
  std::tuple<at::Tensor, at::Tensor> result;
  AT_DISPATCH_FLOATING_TYPES(p.scalar_type(), op, [&] {
    const scalar_t *g = above.const_data_ptr<scalar_t>(), *m = p.const_data_ptr<scalar_t>();
    result = gradients<scalar_t>(q, coefficients.scalar_type(), basis.scalar_type(),
                                 [&](const Patch& patch, int64_t y, scalar_t* out) {
                                   const int64_t at = q.pixel(patch, y);
                                   run_sigmoid_slopes(g + at, m + at, patch.count, out);
                                 });
  });
  return result;
}

at::Tensor quadrant_mask_loss(const at::Tensor& coefficients, const at::Tensor& basis,
                              const at::Tensor& boxes, const at::Tensor& targets,
                              const at::Tensor& target_index, int64_t grid_size) {
  constexpr const char* op = "quadrant_mask_loss";
  check_quadrants(op, coefficients, basis, boxes, grid_size);
  check_mask_targets(op, targets, target_index, coefficients, basis);
  const KernelGuard kernel_guard;
  const Quadrants q(coefficients, basis, boxes, grid_size);
  const Targets target_masks(op, targets, target_index);
  const int64_t instances = q.instances();
  std::vector<double> parts(q.strips.count * instances, 0.0);
  const at::Tensor losses = at::zeros({instances}, q.coefficients.options());
  AT_DISPATCH_FLOATING_TYPES(losses.scalar_type(), op, [&] {
    q.in_strips([&](int64_t s) {
      std::vector<scalar_t> run(padded_run(q.basis.width));
      q.strips.walk(s, q.borders, instances, [&](const Patch& patch) {
        for (int64_t y = patch.first_row; y < patch.last_row; ++y) {
          q.probabilities(patch, y, run.data());
          parts[s * instances + patch.instance] +=
              run_cross_entropy(run.data(), target_masks.run(patch, y), patch.count);
        }
      });
    });
    for (int64_t i = 0; i < instances; ++i) {
      double sum = 0.0;
      for (int64_t s = 0; s < q.strips.count; ++s) sum += parts[s * instances + i];
      losses.mutable_data_ptr<scalar_t>()[i] = static_cast<scalar_t>(sum);
    }
  });
  return losses;
}

std::tuple<at::Tensor, at::Tensor> quadrant_mask_loss_backward(
    const at::Tensor& grad, const at::Tensor& coefficients, const at::Tensor& basis, const at::Tensor& boxes,
    const at::Tensor& targets, const at::Tensor& target_index, int64_t grid_size) {
  constexpr const char* op = "quadrant_mask_loss_backward";
  check_quadrants(op, coefficients, basis, boxes, grid_size);
  check_mask_targets(op, targets, target_index, coefficients, basis);
  check_mask_loss_grad(op, grad, coefficients, basis);
  const KernelGuard kernel_guard;
  const Quadrants q(coefficients, basis, boxes, grid_size);
  const Targets target_masks(op, targets, target_index);
  const at::Tensor above = grad.contiguous();
  std::tuple<at::Tensor, at::Tensor> result;
  AT_DISPATCH_FLOATING_TYPES(above.scalar_type(), op, [&] {
    const scalar_t* g = above.const_data_ptr<scalar_t>();
    result = gradients<scalar_t>(q, coefficients.scalar_type(), basis.scalar_type(),
                                 [&](const Patch& patch, int64_t y, scalar_t* out) {
                                   q.probabilities(patch, y, out);
                                   run_cross_entropy_slopes(g[patch.instance], target_masks.run(patch, y),
                                                            patch.count, out);
                                 });
  });
  return result;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("quadrant_masks", TORCH_FN(mrb::quadrant_masks));
  m.impl("quadrant_masks_backward", TORCH_FN(mrb::quadrant_masks_backward));
  m.impl("quadrant_mask_loss", TORCH_FN(mrb::quadrant_mask_loss));
  m.impl("quadrant_mask_loss_backward", TORCH_FN(mrb::quadrant_mask_loss_backward));
}
