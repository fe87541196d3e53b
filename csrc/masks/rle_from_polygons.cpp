// Run-length encoded masks of polygons, as pycocotools rasterises them.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "../evaluation/pairs.h"
#include "mask_texts.h"
#include "polygon_runs.h"

namespace mrb {
namespace {

std::tuple<at::Tensor, at::Tensor> rle_from_polygons(const at::Tensor& coords,
                                                     const at::Tensor& polygon_offsets,
                                                     const at::Tensor& instance_offsets,
                                                     const at::Tensor& sizes) {
  const char* op = "rle_from_polygons";
  check_shape(op, "coords", coords, {-1, 2}, "(P, 2)");
  check_dtype(op, "coords", coords, at::kDouble);
  check_shape(op, "sizes", sizes, {-1, 2}, "(I, 2)");
  check_dtype(op, "sizes", sizes, at::kLong);
  const at::Tensor point_tensor = coords.contiguous(), size_tensor = sizes.contiguous();
  const int64_t instances = sizes.size(0);
  const double* points = point_tensor.const_data_ptr<double>();
  const int64_t* start = check_starts(op, "polygon_offsets", polygon_offsets, coords.size(0));
  const int64_t* first_polygon =
      check_starts(op, "instance_offsets", instance_offsets, polygon_offsets.size(0) - 1);
  TORCH_CHECK_VALUE(instance_offsets.size(0) == instances + 1, op, ": instance_offsets must hold ",
                    instances + 1, " values, one more than sizes, got ", instance_offsets.size(0));
  const int64_t* size = size_tensor.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < instances; ++i) {
    const int64_t h = size[2 * i], w = size[2 * i + 1];
    TORCH_CHECK_VALUE(h > 0 && w > 0 && h <= kMaxImageSide && w <= kMaxImageSide && h * w <= kMaxMaskPixels,
                      op, ": sizes[", i, "] must be from 1 to ", kMaxImageSide, " and hold at most ",
                      kMaxMaskPixels, " pixels, got ", h, " x ", w);
  }
  std::vector<std::vector<uint8_t>> texts(instances);
  at::parallel_for(0, instances, kMasksPerTask, [&](int64_t begin, int64_t end) {
    PolygonRasterizer rasterizer;
    Runs runs;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t h = size[2 * i], w = size[2 * i + 1];
      bool fine = rasterizer.begin(h, w);
      for (int64_t k = first_polygon[i]; k < first_polygon[i + 1] && fine; ++k) {
        fine = rasterizer.add(points + 2 * start[k], start[k + 1] - start[k]);
      }
      TORCH_CHECK_VALUE(fine, op, ": the outlines of mask ", i, " cross the columns of its image more than ",
                        kMaxCrossings, " times");
      rasterizer.finish(runs);
      encode_runs(runs, h * w, texts[i]);
    }
  });
  return join_masks(texts, size);
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("rle_from_polygons", TORCH_FN(mrb::rle_from_polygons));
}
