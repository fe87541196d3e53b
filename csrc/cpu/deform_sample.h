// Sampling at displaced positions on the CPU. Features are stored channels-last inside a border of zeros, so
// that a tap always reads four pixels (bordered_maps); a tile is a run of output pixels of one image.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "../bilinear.h"
#include "../deform_conv.h"
#include "../multiversion.h"
#include "vec.h"

namespace mrb {

// One row of zeros above, two below (the last one is for taps outside), one column on each side.
struct Bordered {
  int64_t rows, columns;
  explicit Bordered(const DeformConv& conv) : rows(conv.height + 3), columns(conv.width + 2) {}
  int64_t area() const { return rows * columns; }
};

// Where every tap of a tile reads, one entry per (tap, pixel): the upper left of the four neighbours, the
// weights of the lower row and the right column, the factor.
template <typename T>
struct TilePlan {
  std::vector<int32_t> corner;
  std::vector<T> down, right, factor;
  std::vector<T> base_y, base_x;

  // Pixels [first, first + count); `offset` and `mask` point at the channels of one offset group of the
  // image.
  void fill(const DeformConv& conv, const T* offset, const T* mask, int64_t first, int64_t count);
};

// A tap outside reads zeros; one at NaN gives NaN.
template <typename T>
MRB_INLINE void plan_tap(int64_t count, const T* MRB_RESTRICT base_y, const T* MRB_RESTRICT base_x, T tap_y,
                         T tap_x, const T* MRB_RESTRICT dy, const T* MRB_RESTRICT dx, T height, T width,
                         int32_t columns, int32_t* MRB_RESTRICT corner, T* MRB_RESTRICT down,
                         T* MRB_RESTRICT right) {
  const int32_t outside = (static_cast<int32_t>(height) + 1) * columns;
  for (int64_t p = 0; p < count; ++p) {
    const T y = base_y[p] + tap_y + dy[p], x = base_x[p] + tap_x + dx[p];
    const bool inside = (y > T(-1)) & (y < height) & (x > T(-1)) & (x < width);
    const T safe_y = inside ? y : T(0), safe_x = inside ? x : T(0);
    const T low_y = std::floor(safe_y), low_x = std::floor(safe_x);
    const int32_t index = (static_cast<int32_t>(low_y) + 1) * columns + static_cast<int32_t>(low_x) + 1;
    corner[p] = inside ? index : outside;
    down[p] = y != y ? y : safe_y - low_y;
    right[p] = x != x ? x : safe_x - low_x;
  }
}

MRB_MULTIVERSION inline void plan_taps(int64_t count, const float* base_y, const float* base_x, float tap_y,
                                       float tap_x, const float* dy, const float* dx, float height,
                                       float width, int32_t columns, int32_t* corner, float* down,
                                       float* right) {
  plan_tap(count, base_y, base_x, tap_y, tap_x, dy, dx, height, width, columns, corner, down, right);
}

MRB_MULTIVERSION inline void plan_taps(int64_t count, const double* base_y, const double* base_x,
                                       double tap_y, double tap_x, const double* dy, const double* dx,
                                       double height, double width, int32_t columns, int32_t* corner,
                                       double* down, double* right) {
  plan_tap(count, base_y, base_x, tap_y, tap_x, dy, dx, height, width, columns, corner, down, right);
}

template <typename T>
void TilePlan<T>::fill(const DeformConv& conv, const T* offset, const T* mask, int64_t first, int64_t count) {
  const int64_t taps = conv.taps(), pixels = conv.pixels();
  corner.resize(taps * count);
  down.resize(taps * count);
  right.resize(taps * count);
  factor.assign(taps * count, T(1));
  base_y.resize(count);
  base_x.resize(count);
  for (int64_t p = 0; p < count; ++p) {
    base_y[p] = static_cast<T>((first + p) / conv.out_width * conv.stride_h - conv.pad_h);
    base_x[p] = static_cast<T>((first + p) % conv.out_width * conv.stride_w - conv.pad_w);
  }
  for (int64_t k = 0; k < taps; ++k) {
    const T* dy = offset + 2 * k * pixels + first;
    plan_taps(count, base_y.data(), base_x.data(), static_cast<T>(k / conv.kernel_w * conv.dilation_h),
              static_cast<T>(k % conv.kernel_w * conv.dilation_w), dy, dy + pixels,
              static_cast<T>(conv.height), static_cast<T>(conv.width),
              static_cast<int32_t>(Bordered(conv).columns), corner.data() + k * count,
              down.data() + k * count, right.data() + k * count);
    if (mask != nullptr) std::copy_n(mask + k * pixels + first, count, factor.data() + k * count);
  }
}

// Some channels of a bordered map, and rows (pixel, tap) of as many values: `row` is the step between taps.
struct SampleShape {
  int64_t count, taps, lanes, row;
  int64_t columns, channels;  // of the bordered map
};

template <typename T, int N>
MRB_INLINE void blend(const BilinearWeights<T>& w, const T* a, const T* c, int64_t step, T* out) {
  using V = Vec<T, N>;
  *reinterpret_cast<V*>(out) =
      w.up_left * *reinterpret_cast<const V*>(a) + w.up_right * *reinterpret_cast<const V*>(a + step) +
      w.down_left * *reinterpret_cast<const V*>(c) + w.down_right * *reinterpret_cast<const V*>(c + step);
}

// columns[p][k][lane] = sample of the channel `lane` of `map` at tap k of pixel p.
template <typename T>
MRB_INLINE void sample(const SampleShape& s, const TilePlan<T>& plan, const T* map, T* out) {
  for (int64_t p = 0; p < s.count; ++p) {
    for (int64_t k = 0; k < s.taps; ++k, out += s.row) {
      const int64_t i = k * s.count + p;
      const BilinearWeights<T> w(plan.down[i], plan.right[i], plan.factor[i]);
      const T* a = map + plan.corner[i] * s.channels;
      const T* c = a + s.columns * s.channels;
      int64_t lane = 0;
      for (; lane + 16 <= s.lanes; lane += 16) blend<T, 16>(w, a + lane, c + lane, s.channels, out + lane);
      for (; lane + 8 <= s.lanes; lane += 8) blend<T, 8>(w, a + lane, c + lane, s.channels, out + lane);
      for (; lane < s.lanes; ++lane) blend<T, 1>(w, a + lane, c + lane, s.channels, out + lane);
    }
  }
}

// The sums over channels of gradient times each of the four neighbours.
template <typename T, int N>
struct Products {
  Vec<T, N> a{}, b{}, c{}, d{};
};

// The derivatives that follow, with respect to y, x and factor of a tap.
template <typename T, int N>
struct TapDerivatives {
  Vec<T, N> y, x, factor;

  MRB_INLINE TapDerivatives(const Products<T, N>& g, T down, T right, T scale) {
    const T up = T(1) - down, left = T(1) - right;
    y = scale * (left * (g.c - g.a) + right * (g.d - g.b));
    x = scale * (up * (g.b - g.a) + down * (g.d - g.c));
    factor = up * (left * g.a + right * g.b) + down * (left * g.c + right * g.d);
  }
};

template <typename T>
MRB_INLINE void add_halves(const Vec<T, 16>& v, Vec<T, 8>& sum) {
  Vec<T, 8> half[2];
  std::memcpy(half, &v, sizeof(v));
  sum += half[0] + half[1];
}

template <typename T>
MRB_INLINE T total(const Vec<T, 8>& v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

// One step of `scatter`: grad * weights are added to the four neighbours in `to`.
template <typename T, int N, bool kProducts, bool kScatter, bool kColumns>
MRB_INLINE void scatter_step(const BilinearWeights<T>& w, const T* grad, const T* a, const T* c, int64_t step,
                             T* to_a, T* to_c, T* column, Products<T, N>& sums) {
  using V = Vec<T, N>;
  const V g = *reinterpret_cast<const V*>(grad);
  if constexpr (kProducts || kColumns) {
    const V va = *reinterpret_cast<const V*>(a), vb = *reinterpret_cast<const V*>(a + step);
    const V vc = *reinterpret_cast<const V*>(c), vd = *reinterpret_cast<const V*>(c + step);
    if constexpr (kProducts) {
      sums.a += g * va;
      sums.b += g * vb;
      sums.c += g * vc;
      sums.d += g * vd;
    }
    if constexpr (kColumns) {
      *reinterpret_cast<V*>(column) = w.up_left * va + w.up_right * vb + w.down_left * vc + w.down_right * vd;
    }
  }
  if constexpr (kScatter) {
    *reinterpret_cast<V*>(to_a) += w.up_left * g;
    *reinterpret_cast<V*>(to_a + step) += w.up_right * g;
    *reinterpret_cast<V*>(to_c) += w.down_left * g;
    *reinterpret_cast<V*>(to_c + step) += w.down_right * g;
  }
}

// Sums of gradients of one tap over the channels seen so far: with respect to y, x and factor.
template <typename T>
struct TapGrads {
  T* data;         // (taps, 3, pixels), at the first pixel of the tile
  int64_t pixels;  // of the whole output
};

// The backward pass of `sample`: rows of gradients are scattered to the map `to`, reduced to the gradients of
// the taps, and the samples are computed again into `columns`, each where needed.
template <typename T, bool kProducts, bool kScatter, bool kColumns>
MRB_INLINE void scatter(const SampleShape& s, const TilePlan<T>& plan, const T* grad, const T* map, T* to,
                        T* columns, const TapGrads<T>& tap_grads) {
  for (int64_t p = 0; p < s.count; ++p) {
    for (int64_t k = 0; k < s.taps; ++k, grad += s.row, columns += s.row) {
      const int64_t i = k * s.count + p, corner = plan.corner[i] * s.channels, below = s.columns * s.channels;
      const T down = plan.down[i], right = plan.right[i], factor = plan.factor[i];
      const BilinearWeights<T> w(down, right, factor);
      const T *a = map + corner, *c = a + below;
      T *to_a = to + corner, *to_c = to_a + below;
      Products<T, 16> wide;
      Products<T, 8> half;
      Products<T, 1> one;
      int64_t lane = 0;
      for (; lane + 16 <= s.lanes; lane += 16) {
        scatter_step<T, 16, kProducts, kScatter, kColumns>(w, grad + lane, a + lane, c + lane, s.channels,
                                                           to_a + lane, to_c + lane, columns + lane, wide);
      }
      for (; lane + 8 <= s.lanes; lane += 8) {
        scatter_step<T, 8, kProducts, kScatter, kColumns>(w, grad + lane, a + lane, c + lane, s.channels,
                                                          to_a + lane, to_c + lane, columns + lane, half);
      }
      for (; lane < s.lanes; ++lane) {
        scatter_step<T, 1, kProducts, kScatter, kColumns>(w, grad + lane, a + lane, c + lane, s.channels,
                                                          to_a + lane, to_c + lane, columns + lane, one);
      }
      if constexpr (kProducts) {
        add_halves<T>(wide.a, half.a);
        add_halves<T>(wide.b, half.b);
        add_halves<T>(wide.c, half.c);
        add_halves<T>(wide.d, half.d);
        const TapDerivatives<T, 8> many(half, down, right, factor);
        const TapDerivatives<T, 1> rest(one, down, right, factor);
        T* tap = tap_grads.data + 3 * k * tap_grads.pixels + p;
        tap[0] += total<T>(many.y) + rest.y;
        tap[tap_grads.pixels] += total<T>(many.x) + rest.x;
        tap[2 * tap_grads.pixels] += total<T>(many.factor) + rest.factor;
      }
    }
  }
}

}  // namespace mrb
