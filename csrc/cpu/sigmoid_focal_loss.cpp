// Sigmoid focal loss on the CPU. Nearly all logits belong to negative columns: they are computed in long
// runs, which end at a positive column or an ignored row. Sums are taken block by block in float64, so they
// are the same for any number of threads.
#include "../sigmoid_focal_loss.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <type_traits>
#include <vector>

namespace mrb {
namespace {

constexpr int64_t kChunk = 512;        // logits processed at a time
constexpr int64_t kBlock = 32 * 1024;  // logits of a block of rows, about

enum class Result { kLoss, kSlope };

// One function per type: templates cannot have versions per processor.
template <bool square, typename T>
MRB_INLINE void fill(Result result, const Focal<T>& focal, const T* MRB_RESTRICT x, int64_t n,
                     T* MRB_RESTRICT out) {
  if (result == Result::kLoss) {
    for (int64_t i = 0; i < n; ++i) out[i] = focal.template negative<square>(x[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = focal.template negative_slope<square>(x[i]);
  }
}

MRB_MULTIVERSION void negatives(Result result, const Focal<float>& focal, const float* x, int64_t n,
                                float* out) {
  focal.gamma == 2.0f ? fill<true>(result, focal, x, n, out) : fill<false>(result, focal, x, n, out);
}

MRB_MULTIVERSION void negatives(Result result, const Focal<double>& focal, const double* x, int64_t n,
                                double* out) {
  focal.gamma == 2.0 ? fill<true>(result, focal, x, n, out) : fill<false>(result, focal, x, n, out);
}

// Sum in 16 lanes, the same on every processor.
MRB_MULTIVERSION double sum_of(const float* x, int64_t n) {
  float lanes[16] = {};
  const int64_t whole = n / 16 * 16;
  for (int64_t i = 0; i < whole; i += 16) {
    for (int64_t j = 0; j < 16; ++j) lanes[j] += x[i + j];
  }
  double sum = 0.0;
  for (float lane : lanes) sum += lane;
  for (int64_t i = whole; i < n; ++i) sum += x[i];
  return sum;
}

double sum_of(const double* x, int64_t n) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  return sum;
}

// Logits (rows, columns) with their targets; calls run(begin, end) for ranges of negatives, single(i) for
// positives and skip(begin, end) for ignored rows, in the order of the logits.
struct Rows {
  const int64_t* targets;
  int64_t columns;

  template <typename Run, typename Single, typename Skip>
  void walk(int64_t first, int64_t last, const Run& run, const Single& single, const Skip& skip) const {
    int64_t begin = first * columns;
    for (int64_t r = first; r < last; ++r) {
      const int64_t target = targets[r], start = r * columns;
      if (target == 0) continue;
      const int64_t end = target < 0 ? start : start + target - 1;
      if (begin < end) run(begin, end);
      if (target < 0) {
        skip(start, start + columns);
        begin = start + columns;
      } else {
        single(end);
        begin = end + 1;
      }
    }
    if (begin < last * columns) run(begin, last * columns);
  }

  int64_t rows_per_block() const { return std::max<int64_t>(1, kBlock / std::max<int64_t>(1, columns)); }
};

// Buffer for a chunk of values of type S as T, where the types differ.
template <typename S, typename T>
struct Chunk {
  T in[kChunk], out[kChunk];

  const T* read(const S* from, int64_t n) {
    if constexpr (std::is_same_v<S, T>) {
      return from;
    } else {
      for (int64_t i = 0; i < n; ++i) in[i] = static_cast<T>(from[i]);
      return in;
    }
  }
};

template <typename Visit>
void in_chunks(int64_t begin, int64_t end, const Visit& visit) {
  for (int64_t i = begin; i < end; i += kChunk) visit(i, std::min(kChunk, end - i));
}

at::Tensor checked_targets(const char* op, const at::Tensor& targets, int64_t columns) {
  const at::Tensor labels = targets.to(at::kLong).contiguous();
  const int64_t* data = labels.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < labels.numel(); ++i) {
    TORCH_CHECK_VALUE(data[i] >= -1 && data[i] <= columns, op, ": targets[", i, "] must be from -1 to ",
                      columns, " (the columns of logits), got ", data[i]);
  }
  return labels;
}

template <typename S, typename T>
void fill_losses(const Rows& rows, const Focal<T>& focal, const S* x, int64_t count, S* out) {
  at::parallel_for(0, count, rows.rows_per_block(), [&](int64_t first, int64_t last) {
    Chunk<S, T> chunk;
    rows.walk(
        first, last,
        [&](int64_t begin, int64_t end) {
          in_chunks(begin, end, [&](int64_t i, int64_t n) {
            if constexpr (std::is_same_v<S, T>) {
              negatives(Result::kLoss, focal, x + i, n, out + i);
            } else {
              negatives(Result::kLoss, focal, chunk.read(x + i, n), n, chunk.out);
              for (int64_t k = 0; k < n; ++k) out[i + k] = static_cast<S>(chunk.out[k]);
            }
          });
        },
        [&](int64_t i) { out[i] = static_cast<S>(focal.positive(static_cast<T>(x[i]))); },
        [&](int64_t begin, int64_t end) { std::fill(out + begin, out + end, S(0)); });
  });
}

template <typename S, typename T>
double sum_losses(const Rows& rows, const Focal<T>& focal, const S* x, int64_t count) {
  const int64_t step = rows.rows_per_block(), blocks = (count + step - 1) / step;
  std::vector<double> sums(blocks, 0.0);
  at::parallel_for(0, blocks, 1, [&](int64_t first, int64_t last) {
    Chunk<S, T> chunk;
    for (int64_t block = first; block < last; ++block) {
      double& sum = sums[block];
      rows.walk(
          block * step, std::min(count, (block + 1) * step),
          [&](int64_t begin, int64_t end) {
            in_chunks(begin, end, [&](int64_t i, int64_t n) {
              negatives(Result::kLoss, focal, chunk.read(x + i, n), n, chunk.out);
              sum += sum_of(chunk.out, n);
            });
          },
          [&](int64_t i) { sum += focal.positive(static_cast<T>(x[i])); }, [](int64_t, int64_t) {});
    }
  });
  double total = 0.0;
  for (double sum : sums) total += sum;
  return total;
}

// `grad` holds one value per logit, or with `expanded` a single value for all of them.
template <typename S, typename T>
void fill_slopes(const Rows& rows, const Focal<T>& focal, const S* grad, bool expanded, const S* x,
                 int64_t count, S* out) {
  at::parallel_for(0, count, rows.rows_per_block(), [&](int64_t first, int64_t last) {
    Chunk<S, T> chunk;
    rows.walk(
        first, last,
        [&](int64_t begin, int64_t end) {
          in_chunks(begin, end, [&](int64_t i, int64_t n) {
            negatives(Result::kSlope, focal, chunk.read(x + i, n), n, chunk.out);
            const T single = expanded ? static_cast<T>(grad[0]) : T(0);
            if (expanded) {
              for (int64_t k = 0; k < n; ++k) out[i + k] = static_cast<S>(single * chunk.out[k]);
            } else {
              for (int64_t k = 0; k < n; ++k)
                out[i + k] = static_cast<S>(static_cast<T>(grad[i + k]) * chunk.out[k]);
            }
          });
        },
        [&](int64_t i) {
          out[i] = static_cast<S>(static_cast<T>(grad[expanded ? 0 : i]) *
                                  focal.positive_slope(static_cast<T>(x[i])));
        },
        [&](int64_t begin, int64_t end) { std::fill(out + begin, out + end, S(0)); });
  });
}

template <typename S>
using Wide = std::conditional_t<std::is_same_v<S, double>, double, float>;

at::Tensor sigmoid_focal_loss(const at::Tensor& logits, const at::Tensor& targets, double gamma,
                              double alpha) {
  const char* op = "sigmoid_focal_loss";
  check_focal(op, logits, targets, gamma, alpha);
  const at::Tensor source = logits.contiguous();
  const at::Tensor labels = checked_targets(op, targets, logits.size(1));
  at::Tensor losses = at::empty(source.sizes(), source.options());
  const Rows rows{labels.const_data_ptr<int64_t>(), logits.size(1)};
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, source.scalar_type(), "sigmoid_focal_loss", [&] {
    using T = Wide<scalar_t>;
    const Focal<T> focal{static_cast<T>(gamma), static_cast<T>(alpha)};
    fill_losses<scalar_t, T>(rows, focal, source.const_data_ptr<scalar_t>(), source.size(0),
                             losses.mutable_data_ptr<scalar_t>());
  });
  return losses;
}

at::Tensor sigmoid_focal_loss_sum(const at::Tensor& logits, const at::Tensor& targets, double gamma,
                                  double alpha) {
  const char* op = "sigmoid_focal_loss_sum";
  check_focal(op, logits, targets, gamma, alpha);
  const at::Tensor source = logits.contiguous();
  const at::Tensor labels = checked_targets(op, targets, logits.size(1));
  const auto type = source.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor sum = at::empty({}, source.options().dtype(type));
  const Rows rows{labels.const_data_ptr<int64_t>(), logits.size(1)};
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, source.scalar_type(), "sigmoid_focal_loss_sum", [&] {
        using T = Wide<scalar_t>;
        const Focal<T> focal{static_cast<T>(gamma), static_cast<T>(alpha)};
        const double total =
            sum_losses<scalar_t, T>(rows, focal, source.const_data_ptr<scalar_t>(), source.size(0));
        *sum.mutable_data_ptr<T>() = static_cast<T>(total);
      });
  return sum;
}

at::Tensor sigmoid_focal_loss_backward(const at::Tensor& grad, const at::Tensor& logits,
                                       const at::Tensor& targets, double gamma, double alpha) {
  const char* op = "sigmoid_focal_loss_backward";
  check_focal(op, logits, targets, gamma, alpha);
  check_focal_grad(op, grad, logits);
  const at::Tensor source = logits.contiguous();
  const at::Tensor labels = checked_targets(op, targets, logits.size(1));
  const bool expanded = is_expanded_scalar(grad);
  const at::Tensor from = expanded ? grad : grad.contiguous();
  at::Tensor slopes = at::empty(source.sizes(), source.options());
  const Rows rows{labels.const_data_ptr<int64_t>(), logits.size(1)};
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, source.scalar_type(), "sigmoid_focal_loss_backward", [&] {
        using T = Wide<scalar_t>;
        const Focal<T> focal{static_cast<T>(gamma), static_cast<T>(alpha)};
        fill_slopes<scalar_t, T>(rows, focal, from.const_data_ptr<scalar_t>(), expanded,
                                 source.const_data_ptr<scalar_t>(), source.size(0),
                                 slopes.mutable_data_ptr<scalar_t>());
      });
  return slopes;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("sigmoid_focal_loss", TORCH_FN(mrb::sigmoid_focal_loss));
  m.impl("sigmoid_focal_loss_sum", TORCH_FN(mrb::sigmoid_focal_loss_sum));
  m.impl("sigmoid_focal_loss_backward", TORCH_FN(mrb::sigmoid_focal_loss_backward));
}
