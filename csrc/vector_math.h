// Exponentials and logarithms in plain arithmetic, so that loops over them run in vectors on the CPU; on CUDA
// and in float64 those of the library.
#pragma once

#include <c10/macros/Macros.h>

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "multiversion.h"

namespace mrb {

// exp(-a) for a >= 0, to 2 units in the last place, 0 from 88 on; plain arithmetic, so that loops over it run
// in vectors.
C10_HOST_DEVICE MRB_INLINE float exp_of_minus(float a) {
#ifdef __CUDA_ARCH__
  return expf(-a);
#else
  const float bounded = a < 88.0f ? a : 88.0f;
  const float shifted =
      bounded * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the sum is rounded to a whole number
  const float whole = shifted - 12582912.0f;
  const float rest = (bounded - whole * 0.693359375f) + whole * 2.12194440e-4f;
  const float r = -rest;  // from -0.35 to 0.35
  float sum = 1.0f / 5040.0f;
  sum = sum * r + 1.0f / 720.0f;
  sum = sum * r + 1.0f / 120.0f;
  sum = sum * r + 1.0f / 24.0f;
  sum = sum * r + 1.0f / 6.0f;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  int32_t bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  const int32_t exponent = (127 - (bits - 0x4B400000)) << 23;  // whole is at most 127: 2^-127 becomes 0
  float scale;
  std::memcpy(&scale, &exponent, sizeof(scale));
  return sum * scale;
#endif
}

C10_HOST_DEVICE MRB_INLINE double exp_of_minus(double a) { return ::exp(-a); }

// log(1 + e) for e from 0 to 1, with a small relative error for small e too: 2 artanh(e / (2 + e)).
C10_HOST_DEVICE MRB_INLINE float log_of_one_plus(float e) {
#ifdef __CUDA_ARCH__
  return log1pf(e);
#else
  const float s = e / (2.0f + e), q = s * s;
  float sum = 1.0f / 13.0f;
  sum = sum * q + 1.0f / 11.0f;
  sum = sum * q + 1.0f / 9.0f;
  sum = sum * q + 1.0f / 7.0f;
  sum = sum * q + 1.0f / 5.0f;
  sum = sum * q + 1.0f / 3.0f;
  return 2.0f * (s + s * (q * sum));
#endif
}

C10_HOST_DEVICE MRB_INLINE double log_of_one_plus(double e) { return ::log1p(e); }

// log(v) for v from 0 to 1, to 2 units in the last place; less than -100 for 0. A NaN stays one.
C10_HOST_DEVICE MRB_INLINE float log_of_fraction(float v) {
#ifdef __CUDA_ARCH__
  return logf(v);
#else
  const bool subnormal = v < FLT_MIN;
  const float scaled = subnormal ? v * 8388608.0f : v;  // 2^23
  int32_t bits;
  std::memcpy(&bits, &scaled, sizeof(bits));
  const int32_t root_of_half = 0x3F3504F3;  // the mantissa m ends up between this and twice this
  const int32_t above = bits - root_of_half;
  const int32_t exponent = (above >> 23) - (subnormal ? 23 : 0);
  const int32_t mantissa = (above & 0x007FFFFF) + root_of_half;
  float m;
  std::memcpy(&m, &mantissa, sizeof(m));
  const float s = (m - 1.0f) / (m + 1.0f), q = s * s;
  float sum = 1.0f / 9.0f;
  sum = sum * q + 1.0f / 7.0f;
  sum = sum * q + 1.0f / 5.0f;
  sum = sum * q + 1.0f / 3.0f;
  const float whole = static_cast<float>(exponent);
  const float log_m = 2.0f * (s + s * (q * sum));
  const float result = whole * 0.693359375f + (log_m - whole * 2.12194440e-4f);
  return v == v ? result : v;
#endif
}

C10_HOST_DEVICE MRB_INLINE double log_of_fraction(double v) { return ::log(v); }

}  // namespace mrb
