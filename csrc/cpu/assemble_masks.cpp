// Quadrant masks at the size of the image, on the CPU. Per instance, each row of its box is computed and
// stretched to the image's columns once; every image row then blends two stretched rows and compares with
// the threshold. Pixels whose taps all lie outside the box are 0 and not visited.
#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "../multiversion.h"
#include "../paste_masks.h"
#include "../plain_ops.h"
#include "../quadrant_masks.h"
#include "quadrant_rows.h"

namespace mrb {
namespace {

// Source pixels and shares of the resized plane along one axis, as far as the image reaches.
struct Taps {
  std::vector<int32_t> low, high;
  std::vector<float> share;

  Taps(int64_t source, int64_t count, float step) {
    for (int64_t i = 0; i < count; ++i) {
      const ResizeTap tap(i, source, step);
      low.push_back(static_cast<int32_t>(tap.low));
      high.push_back(static_cast<int32_t>(tap.high));
      share.push_back(tap.share);
    }
  }

  // The first place with a tap at `from` or later, and the first with both taps at `to` or later.
  int64_t first(int32_t from) const {
    return std::lower_bound(high.begin(), high.end(), from) - high.begin();
  }
  int64_t last(int32_t to) const { return std::lower_bound(low.begin(), low.end(), to) - low.begin(); }
};

MRB_MULTIVERSION void stretch_run(const float* MRB_RESTRICT source, const int32_t* MRB_RESTRICT low,
                                  const int32_t* MRB_RESTRICT high, const float* MRB_RESTRICT share,
                                  int64_t count, float* MRB_RESTRICT out) {
  for (int64_t i = 0; i < count; ++i)
    out[i] = (1.0f - share[i]) * source[low[i]] + share[i] * source[high[i]];
}

MRB_MULTIVERSION void blend_runs(const float* MRB_RESTRICT first, const float* MRB_RESTRICT second,
                                 float share, float threshold, int64_t count, uint8_t* MRB_RESTRICT out) {
  const float rest = 1.0f - share;
  for (int64_t i = 0; i < count; ++i) out[i] = rest * first[i] + share * second[i] > threshold;
}

// One instance at a time; its rows are asked for from top to bottom.
class Assembler {
 public:
  Assembler(const at::Tensor& coefficients, const RowMajor& basis, const CellBorders& borders,
            const Taps& rows, const Taps& columns)
      : coefficients_(coefficients),
        basis_(basis),
        borders_(borders),
        rows_(rows),
        columns_(columns),
        soft_(padded_run(basis.width) + kRunLanes) {}

  void assemble(int64_t instance, float threshold, int64_t width, uint8_t* image) {
    const int64_t cells = borders_.cells;
    x_ = borders_.columns(instance);
    y_ = borders_.rows(instance);
    if (x_[0] >= x_[cells] || y_[0] >= y_[cells]) return;
    instance_ = instance;
    first_ = columns_.first(x_[0]);
    count_ = columns_.last(x_[cells]) - first_;
    if (count_ <= 0) return;
    above_.row = below_.row = -1;
    above_.data.resize(count_);
    below_.data.resize(count_);
    // One zero on each side of the box: no tap that counts lies further out.
    std::fill(soft_.begin(), soft_.end(), 0.0f);
    const int64_t last_row = rows_.last(y_[cells]);
    for (int64_t row = rows_.first(y_[0]); row < last_row; ++row) {
      load(rows_.low[row], rows_.high[row]);
      blend_runs(above_.data.data(), below_.data.data(), rows_.share[row], threshold, count_,
                 image + row * width + first_);
    }
  }

 private:
  struct Stretched {
    int64_t row = -1;
    std::vector<float> data;
  };

  void load(int64_t low, int64_t high) {
    if (above_.row != low) {
      if (below_.row == low) {
        std::swap(above_, below_);
      } else {
        stretch(low, above_);
      }
    }
    if (below_.row != high) stretch(high, below_);
  }

  void stretch(int64_t row, Stretched& out) {
    const int64_t cells = borders_.cells;
    out.row = row;
    if (row < y_[0] || row >= y_[cells]) {
      std::fill(out.data.begin(), out.data.end(), 0.0f);
      return;
    }
    int64_t r = 0;
    while (row >= y_[r + 1]) ++r;
    // Blocks are written whole, so a run is followed by numbers that belong to no pixel: the next cell covers
    // them, and after the last one they are set to zero.
    for (int64_t c = 0; c < cells; ++c) {
      if (x_[c] >= x_[c + 1]) continue;
      const float* coefficients = coefficients_.const_data_ptr<float>() + instance_ * coefficients_.size(1) +
                                  (r * cells + c) * basis_.maps;
      run_probabilities(coefficients, basis_.row<float>(row) + x_[c], basis_.maps, basis_.pitch,
                        x_[c + 1] - x_[c], soft_.data() + x_[c]);
    }
    std::fill_n(soft_.data() + x_[cells], kRunLanes, 0.0f);
    stretch_run(soft_.data(), columns_.low.data() + first_, columns_.high.data() + first_,
                columns_.share.data() + first_, count_, out.data.data());
  }

  const at::Tensor& coefficients_;
  const RowMajor& basis_;
  const CellBorders& borders_;
  const Taps &rows_, &columns_;
  std::vector<float> soft_;
  Stretched above_, below_;
  const int32_t *x_ = nullptr, *y_ = nullptr;
  int64_t instance_ = 0, first_ = 0, count_ = 0;
};

at::Tensor assemble_masks(const at::Tensor& coefficients, const at::Tensor& basis, const at::Tensor& boxes,
                          int64_t cells, int64_t resized_h, int64_t resized_w, int64_t height, int64_t width,
                          double threshold, double step_y, double step_x) {
  const char* op = "assemble_masks";
  check_quadrants(op, coefficients, basis, boxes, cells);
  check_assembly(op, basis, resized_h, resized_w, height, width, threshold, step_y, step_x);
  const PlainOps plain;
  const int64_t instances = coefficients.size(0);
  const at::Tensor masks = at::zeros({instances, height, width}, coefficients.options().dtype(at::kBool));
  if (masks.numel() == 0) return masks;
  const at::Tensor source = coefficients.to(at::kFloat).contiguous();
  const RowMajor rows = RowMajor::copy_of(basis, at::kFloat);
  const CellBorders borders(boxes, basis.size(1), basis.size(2), cells);
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
