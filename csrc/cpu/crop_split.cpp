// Crop split on the CPU: the grid cells of all boxes along each axis are tabulated once; rows are processed
// in parallel. Each element is read or written once, so results are the same for any number of threads.
#include "../crop_split.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <vector>

namespace mrb {
namespace {

// Grid cell of every pixel of one axis (axis 0: x, 1: y) in every box: (side, n), -1 outside.
std::vector<int32_t> cell_table(const at::Tensor& boxes, int64_t axis, int64_t side, int64_t grid_size) {
  const at::Tensor box_rows = boxes.to(at::kFloat).contiguous();
  const float* box = box_rows.const_data_ptr<float>();
  const int64_t count = boxes.size(0);
  std::vector<int32_t> table(side * count);
  for (int64_t k = 0; k < count; ++k) {
    const GridAxis cell_axis(box[4 * k + axis], box[4 * k + axis + 2], grid_size);
    for (int64_t i = 0; i < side; ++i) table[i * count + k] = cell_axis.cell(i);
  }
  return table;
}

// Calls visit(index in the result, index in the data) for all elements of the (H, W, n) result; the index in
// the data is -1 outside the box.
template <typename Visit>
void visit_cells(const at::Tensor& boxes, int64_t grid_size, int64_t height, int64_t width,
                 const Visit& visit) {
  const int64_t count = boxes.size(0), plane = height * width * count;
  const std::vector<int32_t> columns = cell_table(boxes, 0, width, grid_size);
  const std::vector<int32_t> rows = cell_table(boxes, 1, height, grid_size);
  at::parallel_for(0, height, 1, [&](int64_t first, int64_t last) {
    for (int64_t y = first; y < last; ++y) {
      const int32_t* row = rows.data() + y * count;
      for (int64_t x = 0; x < width; ++x) {
        const int32_t* column = columns.data() + x * count;
        const int64_t start = (y * width + x) * count;
        for (int64_t k = 0; k < count; ++k) {
          const bool inside = row[k] >= 0 && column[k] >= 0;
          visit(start + k, inside ? (row[k] * grid_size + column[k]) * plane + start + k : -1);
        }
      }
    }
  });
}

at::Tensor crop_split(const at::Tensor& data, const at::Tensor& boxes, int64_t grid_size) {
  check_crop_split("crop_split", "data", data, boxes, grid_size);
  const at::Tensor source = data.contiguous();
  at::Tensor result = at::empty({data.size(1), data.size(2), data.size(3)}, source.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, source.scalar_type(), "crop_split", [&] {
    const scalar_t* from = source.const_data_ptr<scalar_t>();
    scalar_t* to = result.mutable_data_ptr<scalar_t>();
    visit_cells(boxes, grid_size, data.size(1), data.size(2),
                [&](int64_t i, int64_t index) { to[i] = index < 0 ? scalar_t(0) : from[index]; });
  });
  return result;
}

at::Tensor crop_split_backward(const at::Tensor& grad, const at::Tensor& boxes, int64_t grid_size) {
  check_crop_split_grad("crop_split_backward", grad, boxes, grid_size);
  const at::Tensor source = grad.contiguous();
  at::Tensor result =
      at::zeros({grid_size * grid_size, grad.size(0), grad.size(1), grad.size(2)}, source.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, source.scalar_type(), "crop_split_backward", [&] {
    const scalar_t* from = source.const_data_ptr<scalar_t>();
    scalar_t* to = result.mutable_data_ptr<scalar_t>();
    visit_cells(boxes, grid_size, grad.size(0), grad.size(1), [&](int64_t i, int64_t index) {
      if (index >= 0) to[index] = from[i];
    });
  });
  return result;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("crop_split", TORCH_FN(mrb::crop_split));
  m.impl("crop_split_backward", TORCH_FN(mrb::crop_split_backward));
}
