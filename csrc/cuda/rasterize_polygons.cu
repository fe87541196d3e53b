// Polygon mask targets on CUDA: one block per box, threads share the edges, then the columns.
// Offsets and instance indices are not read back to be checked: out of order or out of range, they give empty
// masks.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "../rasterize_polygons.h"
#include "launch.h"

namespace mrb {
namespace {

constexpr int kBits = 32;

struct Polygons {
  const double* coords;
  const int64_t* polygon_offsets;
  const int64_t* instance_offsets;
  int64_t points, polygons, instances;
};

// Sets bits of toggles, `words` per column, for the edges of this thread.
__device__ void toggle_edges(const double* points, int64_t count, const CropWindow& window, int64_t size,
                             int64_t words, unsigned int* toggles) {
  const auto emit = [&](int64_t column, int64_t row) {
    // Row `size` of a column is row 0 of the next one.
    if (row == size) {
      row = 0;
      ++column;
    }
    if (column < size) atomicXor(toggles + column * words + row / kBits, 1u << (row % kBits));
  };
  for (int64_t p = threadIdx.x; p < count; p += blockDim.x) {
    const double* a = points + 2 * p;
    const double* b = points + 2 * ((p + 1) % count);
    edge_crossings(fine_coordinate(a[0], window.x, window.scale_x),
                   fine_coordinate(a[1], window.y, window.scale_y),
                   fine_coordinate(b[0], window.x, window.scale_x),
                   fine_coordinate(b[1], window.y, window.scale_y), size, size, emit);
  }
}

// Running parity of the toggles in column-major order, or-ed into mask (row-major).
__device__ void fill_columns(const unsigned int* toggles, int64_t size, int64_t words, bool* mask) {
  for (int64_t column = threadIdx.x; column < size; column += blockDim.x) {
    unsigned int before = 0;
    for (int64_t w = 0; w < column * words; ++w) before ^= toggles[w];
    bool inside = __popc(before) & 1;
    for (int64_t row = 0; row < size; ++row) {
      inside ^= toggles[column * words + row / kBits] >> (row % kBits) & 1u;
      if (inside) mask[row * size + column] = true;
    }
  }
}

__global__ void rasterize(Polygons all, const int64_t* instance_of_box, const float* boxes, int64_t count,
                          int64_t image_w, int64_t image_h, int64_t size, int64_t words,
                          unsigned int* scratch, bool* out) {
  unsigned int* toggles = scratch + blockIdx.x * size * words;
  for (int64_t r = blockIdx.x; r < count; r += gridDim.x) {
    const CropWindow window(boxes + 4 * r, image_w, image_h, size);
    const int64_t instance = instance_of_box[r];
    if (!window.valid || instance < 0 || instance >= all.instances) continue;
    const int64_t first = all.instance_offsets[instance], last = all.instance_offsets[instance + 1];
    if (first < 0 || last > all.polygons) continue;
    for (int64_t k = first; k < last; ++k) {
      const int64_t begin = all.polygon_offsets[k], end = all.polygon_offsets[k + 1];
      if (begin < 0 || end > all.points || end - begin < 3) continue;
      for (int64_t w = threadIdx.x; w < size * words; w += blockDim.x) toggles[w] = 0;
      __syncthreads();
      toggle_edges(all.coords + 2 * begin, end - begin, window, size, words, toggles);
      __syncthreads();
      fill_columns(toggles, size, words, out + r * size * size);
      __syncthreads();
    }
  }
}

at::Tensor rasterize_polygons(const at::Tensor& coords, const at::Tensor& polygon_offsets,
                              const at::Tensor& instance_offsets, const at::Tensor& instance_of_box,
                              const at::Tensor& boxes, int64_t image_w, int64_t image_h, int64_t size) {
  check_rasterize_polygons(coords, polygon_offsets, instance_offsets, instance_of_box, boxes, image_w,
                           image_h, size);
  const c10::cuda::CUDAGuard guard(boxes.device());
  const int64_t count = boxes.size(0), words = (size + kBits - 1) / kBits;
  at::Tensor result = at::zeros({count, size, size}, boxes.options().dtype(at::kBool));
  if (count == 0) return result;
  const at::Tensor points = coords.to(at::kDouble).contiguous();
  const at::Tensor polygons = polygon_offsets.contiguous(), instances = instance_offsets.contiguous();
  const at::Tensor chosen = instance_of_box.contiguous(), box_rows = boxes.to(at::kFloat).contiguous();
  // Enough blocks to fill a GPU, and at max_blocks 64 MiB of scratch memory.
  const int64_t max_blocks = std::max<int64_t>(1, (int64_t(1) << 24) / (size * words));
  const int64_t blocks = std::min<int64_t>({count, 1024, max_blocks});
  const at::Tensor scratch = at::empty({blocks, size, words}, boxes.options().dtype(at::kInt));
  const Polygons all{points.const_data_ptr<double>(),     polygons.const_data_ptr<int64_t>(),
                     instances.const_data_ptr<int64_t>(), coords.size(0),
                     polygon_offsets.size(0) - 1,         instance_offsets.size(0) - 1};
  rasterize<<<static_cast<unsigned int>(blocks), 64, 0, at::cuda::getCurrentCUDAStream()>>>(
      all, chosen.const_data_ptr<int64_t>(), box_rows.const_data_ptr<float>(), count, image_w, image_h, size,
      words, reinterpret_cast<unsigned int*>(scratch.data_ptr<int>()), result.mutable_data_ptr<bool>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return result;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("rasterize_polygons", TORCH_FN(mrb::rasterize_polygons));
}
