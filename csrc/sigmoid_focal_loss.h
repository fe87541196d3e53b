// What the CPU and CUDA kernels of sigmoid_focal_loss share: argument checks and the loss of one logit.
//
// Row i has one target: 0 is background, c = 1..C makes column c - 1 the positive one, -1 ignores the row.
// With p = sigmoid(x): positive -alpha (1-p)^gamma log p, negative -(1-alpha) p^gamma log(1-p).
#pragma once

#include <c10/macros/Macros.h>

#include <cmath>

#include "checks.h"
#include "vector_math.h"

namespace mrb {

inline void check_focal(const char* op, const at::Tensor& logits, const at::Tensor& targets, double gamma,
                        double alpha) {
  check_shape(op, "logits", logits, {-1, -1}, "(N, C)");
  check_floating(op, "logits", logits);
  check_shape(op, "targets", targets, {logits.size(0)}, "(N,), one class per row of logits");
  TORCH_CHECK_TYPE(at::isIntegralType(targets.scalar_type(), false), op, ": targets must be integers, got ",
                   targets.scalar_type());
  check_device(op, "targets", targets, "logits", logits);
  TORCH_CHECK_VALUE(std::isfinite(gamma) && gamma >= 0.0, op, ": gamma must be finite and at least 0, got ",
                    gamma);
  check_fraction(op, "alpha", alpha);
}

inline void check_focal_grad(const char* op, const at::Tensor& grad, const at::Tensor& logits) {
  check_shape(op, "grad", grad, {logits.size(0), logits.size(1)}, "(N, C) like logits");
  check_dtype(op, "grad", grad, logits.scalar_type());
  check_device(op, "grad", grad, "logits", logits);
}

// The gradient of a sum: one value, expanded without memory.
inline bool is_expanded_scalar(const at::Tensor& grad) {
  return grad.numel() > 0 && grad.stride(0) == 0 && grad.stride(1) == 0;
}

// Probability p, its complement q, and their logarithms, exact at both ends. A NaN stays one.
template <typename T>
struct Sigmoid {
  T p, q, log_p, log_q;

  C10_HOST_DEVICE MRB_INLINE explicit Sigmoid(T x) {
    const bool above = x > T(0);
    const T e = exp_of_minus(above ? x : -x), tail = log_of_one_plus(e);
    const T near = T(1) / (T(1) + e), far = e * near;
    p = above ? near : far;
    q = above ? far : near;
    log_p = (above ? T(0) : x) - tail;
    log_q = (x < T(0) ? T(0) : -x) - tail;
  }
};

template <typename T>
struct Focal {
  T gamma, alpha;

  // probability^gamma; the logarithm is that of the probability.
  template <bool square>
  C10_HOST_DEVICE MRB_INLINE T power(T probability, T logarithm) const {
    return square ? probability * probability : exp_of_minus(-gamma * logarithm);
  }

  template <bool square>
  C10_HOST_DEVICE MRB_INLINE T negative(T x) const {
    const Sigmoid<T> s(x);
    return (alpha - T(1)) * power<square>(s.p, s.log_p) * s.log_q;
  }

  template <bool square>
  C10_HOST_DEVICE MRB_INLINE T negative_slope(T x) const {
    const Sigmoid<T> s(x);
    return (alpha - T(1)) * power<square>(s.p, s.log_p) * (gamma * s.q * s.log_q - s.p);
  }

  // parity: the logarithm ends at that of the smallest normal float, in the slope too.
  C10_HOST_DEVICE MRB_INLINE T positive(T x) const {
    const Sigmoid<T> s(x);
    return -alpha * power<false>(s.q, s.log_q) * bounded(s.log_p);
  }

  C10_HOST_DEVICE MRB_INLINE T positive_slope(T x) const {
    const Sigmoid<T> s(x);
    return alpha * power<false>(s.q, s.log_q) * (gamma * s.p * bounded(s.log_p) - s.q);
  }

  C10_HOST_DEVICE static MRB_INLINE T bounded(T logarithm) {
    const T min_log = T(-87.33654475055310899);
    return logarithm < min_log ? min_log : logarithm;
  }
};

}  // namespace mrb
