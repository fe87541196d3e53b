// Quadrant masks at the size of the image, on the CPU, instance by instance, row by row (resize_rows.h).
// Pixels whose taps are all outside the box are 0 and not visited.
#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "../kernel_guard.h"
#include "../quadrant_masks.h"
#include "quadrant_rows.h"
#include "resize_rows.h"

namespace mrb {
namespace {

// Taps of the resized plane along one axis, as far as the image reaches.
struct Taps : ResizeTaps {
  Taps(int64_t source, int64_t count, float step) { fill(source, step, 0, count); }

  // The first index with a tap at `from` or later, and the first with both taps at `to` or later.
  int64_t first(int32_t from) const {
    return std::lower_bound(high.begin(), high.end(), from) - high.begin();
  }
  int64_t last(int32_t to) const { return std::lower_bound(low.begin(), low.end(), to) - low.begin(); }
};

// One instance at a time, its rows from top to bottom.
class Assembler {
 public:
  Assembler(const at::Tensor& coefficients, const RowMajor& basis, const GridBorders& borders,
            const Taps& rows, const Taps& columns)
      : coefficients_(coefficients),
        basis_(basis),
        borders_(borders),
        rows_(rows),
        columns_(columns),
        soft_(padded_run(basis.width) + kRunLanes) {}

  void assemble(int64_t instance, float threshold, int64_t width, uint8_t* image) {
    const int64_t grid_size = borders_.grid_size;
    x_ = borders_.columns(instance);
    y_ = borders_.rows(instance);
    if (x_[0] >= x_[grid_size] || y_[0] >= y_[grid_size]) return;
    instance_ = instance;
    first_ = columns_.first(x_[0]);
    count_ = columns_.last(x_[grid_size]) - first_;
    if (count_ <= 0) return;
    resized_.reset(count_);
    // One zero on each side of the box: no tap that counts is further out.
    std::fill(soft_.begin(), soft_.end(), 0.0f);
    const int64_t last_row = rows_.last(y_[grid_size]);
    for (int64_t row = rows_.first(y_[0]); row < last_row; ++row) {
      resized_.load(rows_.low[row], rows_.high[row],
                    [&](int64_t source, float* out) { compute_row(source, out); });
      blend_rows(resized_.above.data(), resized_.below.data(), rows_.weight[row], threshold, count_,
                 image + row * width + first_);
    }
  }

 private:
  // One row of the soft masks, resized to the image's columns.
  void compute_row(int64_t row, float* out) {
    const int64_t grid_size = borders_.grid_size;
    if (row < y_[0] || row >= y_[grid_size]) {
      std::fill_n(out, count_, 0.0f);
      return;
    }
    int64_t r = 0;
    while (row >= y_[r + 1]) ++r;
    // Blocks are written whole, so a run is followed by values that belong to no pixel: the next grid cell
    // overwrites them, and after the last one they are set to zero.
    for (int64_t c = 0; c < grid_size; ++c) {
      if (x_[c] >= x_[c + 1]) continue;
      const float* coefficients = coefficients_.const_data_ptr<float>() + instance_ * coefficients_.size(1) +
                                  (r * grid_size + c) * basis_.maps;
      run_probabilities(coefficients, basis_.row<float>(row) + x_[c], basis_.maps, basis_.pitch,
                        x_[c + 1] - x_[c], soft_.data() + x_[c]);
    }
    std::fill_n(soft_.data() + x_[grid_size], kRunLanes, 0.0f);
    resize_row(soft_.data(), columns_.low.data() + first_, columns_.high.data() + first_,
               columns_.weight.data() + first_, count_, out);
  }

  const at::Tensor& coefficients_;
  const RowMajor& basis_;
  const GridBorders& borders_;
  const Taps &rows_, &columns_;
  std::vector<float> soft_;
  ResizedRows resized_;
  const int32_t *x_ = nullptr, *y_ = nullptr;
  int64_t instance_ = 0, first_ = 0, count_ = 0;
};

at::Tensor assemble_masks(const at::Tensor& coefficients, const at::Tensor& basis, const at::Tensor& boxes,
                          int64_t grid_size, int64_t resized_h, int64_t resized_w, int64_t height,
                          int64_t width, double threshold, double step_y, double step_x) {
  const char* op = "assemble_masks";
  check_quadrants(op, coefficients, basis, boxes, grid_size);
  check_assembly(op, basis, resized_h, resized_w, height, width, threshold, step_y, step_x);
  const KernelGuard kernel_guard;
  const int64_t instances = coefficients.size(0);
  const at::Tensor masks = at::zeros({instances, height, width}, coefficients.options().dtype(at::kBool));
  if (masks.numel() == 0) return masks;
  const at::Tensor source = coefficients.to(at::kFloat).contiguous();
  const RowMajor rows = RowMajor::copy_of(basis, at::kFloat);
  const GridBorders borders(boxes, basis.size(1), basis.size(2), grid_size);
  const int64_t plane_h = basis.size(1), plane_w = basis.size(2);
  const Taps row_taps(plane_h, std::min(resized_h, height), resize_step(plane_h, resized_h, step_y));
  const Taps column_taps(plane_w, std::min(resized_w, width), resize_step(plane_w, resized_w, step_x));
  uint8_t* out = reinterpret_cast<uint8_t*>(masks.mutable_data_ptr<bool>());
  at::parallel_for(0, instances, 1, [&](int64_t first, int64_t last) {
    Assembler assembler(source, rows, borders, row_taps, column_taps);
    for (int64_t i = first; i < last; ++i) {
      assembler.assemble(i, static_cast<float>(threshold), width, out + i * height * width);
    }
  });
  return masks;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) { m.impl("assemble_masks", TORCH_FN(mrb::assemble_masks)); }
