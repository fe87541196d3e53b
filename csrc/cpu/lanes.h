// Copies between maps and blocks of 16 channels that lie side by side ("lanes"), so that arithmetic on them
// runs in full vectors whatever the width of an RoI. T is float or double, S the type of the map.
#pragma once

#include <algorithm>
#include <cstdint>

#ifdef __SSE__
#include <xmmintrin.h>
#endif

namespace mrb {

constexpr int64_t kLanes = 16;

// to[i][lane] = from[lane * plane + i], for i < count and lane < lanes.
template <typename S, typename T>
inline void to_lanes(const S* from, int64_t plane, int64_t count, int64_t lanes, T* to) {
  for (int64_t lane = 0; lane < lanes; ++lane) {
    for (int64_t i = 0; i < count; ++i) to[i * kLanes + lane] = static_cast<T>(from[lane * plane + i]);
  }
}

// to[lane * plane + i] = from[i][lane], for i < count and lane < lanes.
template <typename S, typename T>
inline void from_lanes(const T* from, int64_t plane, int64_t count, int64_t lanes, S* to) {
  for (int64_t lane = 0; lane < lanes; ++lane) {
    for (int64_t i = 0; i < count; ++i) to[lane * plane + i] = static_cast<S>(from[i * kLanes + lane]);
  }
}

#ifdef __SSE__
// The same for full blocks of float, four by four.
inline void transpose4(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + from_stride);
  __m128 c = _mm_loadu_ps(from + 2 * from_stride), d = _mm_loadu_ps(from + 3 * from_stride);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to, a);
  _mm_storeu_ps(to + to_stride, b);
  _mm_storeu_ps(to + 2 * to_stride, c);
  _mm_storeu_ps(to + 3 * to_stride, d);
}

inline void to_lanes(const float* from, int64_t plane, int64_t count, int64_t lanes, float* to) {
  const int64_t whole = lanes == kLanes ? count / 4 * 4 : 0;
  for (int64_t i = 0; i < whole; i += 4) {
    for (int64_t lane = 0; lane < kLanes; lane += 4) {
      transpose4(from + lane * plane + i, plane, to + i * kLanes + lane, kLanes);
    }
  }
  to_lanes<float, float>(from + whole, plane, count - whole, lanes, to + whole * kLanes);
}

inline void from_lanes(const float* from, int64_t plane, int64_t count, int64_t lanes, float* to) {
  const int64_t whole = lanes == kLanes ? count / 4 * 4 : 0;
  for (int64_t i = 0; i < whole; i += 4) {
    for (int64_t lane = 0; lane < kLanes; lane += 4) {
      transpose4(from + i * kLanes + lane, kLanes, to + lane * plane + i, plane);
    }
  }
  from_lanes<float, float>(from + whole * kLanes, plane, count - whole, lanes, to + whole);
}
#endif

// A block of lanes of one map: `data` points at the first channel of the block.
template <typename S>
struct LaneMap {
  S* data;
  int64_t height, width;
  int64_t plane, pixel;  // steps from channel to channel and from column to column
  int64_t lanes;         // channels in this block, at most kLanes

  S* at(int64_t row, int64_t column) const { return data + (row * width + column) * pixel; }
};

// Copies the pixels at the crossings of `rows` and `columns` to `window`, row by row.
template <typename S, typename T>
void load_window(const LaneMap<const S>& map, const int32_t* rows, int32_t row_count, const int32_t* columns,
                 int32_t column_count, T* window) {
  const bool contiguous = columns[column_count - 1] - columns[0] + 1 == column_count;
  for (int32_t r = 0; r < row_count; ++r, window += column_count * kLanes) {
    if (contiguous && map.pixel == 1) {
      to_lanes(map.at(rows[r], columns[0]), map.plane, column_count, map.lanes, window);
      continue;
    }
    for (int32_t i = 0; i < column_count; ++i) {
      const S* pixel = map.at(rows[r], columns[i]);
      T* to = window + i * kLanes;
      if (map.plane == 1 && map.lanes == kLanes) {
        for (int64_t lane = 0; lane < kLanes; ++lane) to[lane] = static_cast<T>(pixel[lane]);
      } else {
        for (int64_t lane = 0; lane < map.lanes; ++lane) to[lane] = static_cast<T>(pixel[lane * map.plane]);
      }
    }
  }
}

// Writes the rows [first, last) of a whole map in lanes to `map`, and zero to its other rows.
template <typename S, typename T>
void store_rows(const T* block, int64_t first, int64_t last, const LaneMap<S>& map) {
  const int64_t begin = first * map.width, end = last * map.width, plane_size = map.height * map.width;
  if (map.pixel == 1) {
    for (int64_t lane = 0; lane < map.lanes; ++lane) {
      S* plane = map.data + lane * map.plane;
      std::fill(plane, plane + begin, S(0));
      std::fill(plane + end, plane + plane_size, S(0));
    }
    from_lanes(block + begin * kLanes, map.plane, end - begin, map.lanes, map.data + begin);
    return;
  }
  for (int64_t i = 0; i < plane_size; ++i) {
    S* to = map.data + i * map.pixel;
    const T* from = block + i * kLanes;
    const bool inside = i >= begin && i < end;
    for (int64_t lane = 0; lane < map.lanes; ++lane) {
      to[lane * map.plane] = inside ? static_cast<S>(from[lane]) : S(0);
    }
  }
}

}  // namespace mrb
