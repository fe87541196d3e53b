// Polygon mask targets on the CPU: crop by a box, resize to size x size, rasterise (see
// ../rasterize_polygons.h).
#include "../rasterize_polygons.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

namespace mrb {
namespace {

void check_offsets(const char* name, const at::Tensor& offsets, int64_t total, const char* of) {
  const int64_t* value = offsets.const_data_ptr<int64_t>();
  const int64_t count = offsets.size(0);
  TORCH_CHECK_VALUE(value[0] == 0, "rasterize_polygons: ", name, " must begin with 0, got ", value[0]);
  for (int64_t i = 1; i < count; ++i) {
    TORCH_CHECK_VALUE(value[i] >= value[i - 1], "rasterize_polygons: ", name, " must not decrease, got ",
                      value[i - 1], " then ", value[i], " at ", i);
  }
  TORCH_CHECK_VALUE(value[count - 1] == total, "rasterize_polygons: ", name, " must end with the number of ",
                    of, " (", total, "), got ", value[count - 1]);
}

struct Polygons {
  const double* coords;
  const int64_t* polygon_offsets;
  const int64_t* instance_offsets;
};

// Toggles of one polygon in column-major order, then their running parity or-ed into mask (row-major).
void rasterize_polygon(const double* points, int64_t count, const CropWindow& window, int64_t size,
                       std::vector<uint8_t>& toggles, uint8_t* mask) {
  std::fill(toggles.begin(), toggles.end(), 0);
  const auto emit = [&](int64_t column, int64_t row) { toggles[column * size + row] ^= 1; };
  int64_t x = fine_coordinate(points[2 * count - 2], window.x, window.scale_x);
  int64_t y = fine_coordinate(points[2 * count - 1], window.y, window.scale_y);
  for (int64_t p = 0; p < count; ++p) {
    const int64_t next_x = fine_coordinate(points[2 * p], window.x, window.scale_x);
    const int64_t next_y = fine_coordinate(points[2 * p + 1], window.y, window.scale_y);
    edge_crossings(x, y, next_x, next_y, size, size, emit);
    x = next_x;
    y = next_y;
  }
  uint8_t inside = 0;
  for (int64_t column = 0; column < size; ++column) {
    for (int64_t row = 0; row < size; ++row) {
      inside ^= toggles[column * size + row];
      mask[row * size + column] |= inside;
    }
  }
}

at::Tensor rasterize_polygons(const at::Tensor& coords, const at::Tensor& polygon_offsets,
                              const at::Tensor& instance_offsets, const at::Tensor& instance_of_box,
                              const at::Tensor& boxes, int64_t image_w, int64_t image_h, int64_t size) {
  check_rasterize_polygons(coords, polygon_offsets, instance_offsets, instance_of_box, boxes, image_w,
                           image_h, size);
  const at::Tensor point_tensor = coords.to(at::kDouble).contiguous();
  const at::Tensor polygon_tensor = polygon_offsets.contiguous(),
                   instance_tensor = instance_offsets.contiguous();
  const at::Tensor index_tensor = instance_of_box.contiguous();
  const at::Tensor box_tensor = boxes.to(at::kFloat).contiguous();
  check_offsets("polygon_offsets", polygon_tensor, coords.size(0), "points");
  check_offsets("instance_offsets", instance_tensor, polygon_offsets.size(0) - 1, "polygons");
  const int64_t count = boxes.size(0), instances = instance_offsets.size(0) - 1;
  const int64_t* instance_of = index_tensor.const_data_ptr<int64_t>();
  for (int64_t r = 0; r < count; ++r) {
    TORCH_CHECK_VALUE(instance_of[r] >= 0 && instance_of[r] < instances,
                      "rasterize_polygons: instance_of_box[", r, "] must be from 0 to ", instances - 1,
                      ", got ", instance_of[r]);
  }
  const Polygons polygons{point_tensor.const_data_ptr<double>(), polygon_tensor.const_data_ptr<int64_t>(),
                          instance_tensor.const_data_ptr<int64_t>()};
  const float* box = box_tensor.const_data_ptr<float>();
  at::Tensor result = at::zeros({count, size, size}, boxes.options().dtype(at::kBool));
  uint8_t* out = reinterpret_cast<uint8_t*>(result.mutable_data_ptr<bool>());
  at::parallel_for(0, count, 4, [&](int64_t first, int64_t last) {
    std::vector<uint8_t> toggles(size * size + 1);
    for (int64_t r = first; r < last; ++r) {
      const CropWindow window(box + 4 * r, image_w, image_h, size);
      if (!window.valid) continue;
      for (int64_t k = polygons.instance_offsets[instance_of[r]];
           k < polygons.instance_offsets[instance_of[r] + 1]; ++k) {
        const int64_t begin = polygons.polygon_offsets[k], points = polygons.polygon_offsets[k + 1] - begin;
        // Fewer than three points enclose nothing.
        if (points < 3) continue;
        rasterize_polygon(polygons.coords + 2 * begin, points, window, size, toggles, out + r * size * size);
      }
    }
  });
  return result;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("rasterize_polygons", TORCH_FN(mrb::rasterize_polygons));
}
