// Bilinear interpolation, shared by the CPU and CUDA kernels: which two pixels of an axis a sample reads, and
// the weights of four neighbours. The published operations differ at the border of a map; each has its own
// rule here.
#pragma once

#include <c10/macros/Macros.h>

#include <cstdint>

namespace mrb {

// A sample on one axis: (1 - weight) * value[low] + weight * value[high].
template <typename T>
struct BilinearTap {
  int64_t low, high;
  T weight;
};

// RoIAlign: samples more than one pixel off the map do not count.
template <typename T>
C10_HOST_DEVICE inline bool roi_align_reads(T position, int64_t size) {
  return position >= T(-1) && position <= static_cast<T>(size);
}

// RoIAlign: samples are clamped to the map.
template <typename T>
C10_HOST_DEVICE inline BilinearTap<T> roi_align_tap(T position, int64_t size) {
  const T clamped = position > T(0) ? position : T(0);
  const int64_t low = static_cast<int64_t>(clamped);
  if (low >= size - 1) return {size - 1, size - 1, T(0)};
  return {low, low + 1, clamped - static_cast<T>(low)};
}

// Deformable PSRoI pooling: samples more than half a pixel off the map do not count.
template <typename T>
C10_HOST_DEVICE inline bool psroi_reads(T position, int64_t size) {
  return position >= T(-.5) && position <= static_cast<T>(size) - T(.5);
}

// Deformable PSRoI pooling: samples are clamped to the map; at whole positions both pixels are the same one.
template <typename T>
C10_HOST_DEVICE inline BilinearTap<T> psroi_tap(T position, int64_t size) {
  const T last = static_cast<T>(size - 1);
  const T clamped = position > T(0) ? (position < last ? position : last) : T(0);
  const int64_t low = static_cast<int64_t>(clamped);
  return {low, static_cast<T>(low) < clamped ? low + 1 : low, clamped - static_cast<T>(low)};
}

// Resize without aligned corners: target pixel i of an axis with `source` pixels, `step` of them per target
// pixel.
C10_HOST_DEVICE inline BilinearTap<float> resize_tap(int64_t i, int64_t source, float step) {
  const float position = step * (static_cast<float>(i) + 0.5f) - 0.5f;
  const float clamped = position > 0.0f ? position : 0.0f;
  int64_t low = static_cast<int64_t>(clamped);
  if (low > source - 1) low = source - 1;
  const float rest = clamped - static_cast<float>(low);
  return {low, low + 1 < source ? low + 1 : low, rest < 1.0f ? rest : 1.0f};
}

// Source pixels per target pixel.
C10_HOST_DEVICE inline float resize_step(int64_t source, int64_t target) {
  return static_cast<float>(source) / static_cast<float>(target);
}

// Weights of four neighbours, times a factor; `down` and `right` are those of the lower and the right ones.
template <typename T>
struct BilinearWeights {
  T up_left, up_right, down_left, down_right;

  C10_HOST_DEVICE BilinearWeights(T down, T right, T factor)
      : up_left((T(1) - down) * (T(1) - right) * factor),
        up_right((T(1) - down) * right * factor),
        down_left(down * (T(1) - right) * factor),
        down_right(down * right * factor) {}
};

}  // namespace mrb
