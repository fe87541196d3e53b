// Eight or sixteen values side by side as one, at any alignment; the compiler maps it to the registers of
// each target.
#pragma once

#include <cstdint>

namespace mrb {

template <typename T, int N>
struct VecOf;

#define MRB_VEC(T, N)                                                                                        \
  template <>                                                                                                \
  struct VecOf<T, N> {                                                                                       \
    typedef T type __attribute__((vector_size(N * sizeof(T)), aligned(alignof(T)), may_alias)); /* NOLINT */ \
  }
MRB_VEC(float, 8);
MRB_VEC(float, 16);
MRB_VEC(double, 8);
MRB_VEC(double, 16);
#undef MRB_VEC

template <typename T>
struct VecOf<T, 1> {
  using type = T;
};

template <typename T, int N>
using Vec = typename VecOf<T, N>::type;

}  // namespace mrb
