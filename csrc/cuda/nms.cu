// Greedy NMS on CUDA.
//
// Boxes are sorted by descending score. For a chunk of rows, one kernel writes a bit per pair (row, later
// box) that says "IoU above the threshold"; a second kernel, one block, decides the rows in order, 64 at a
// time, and merges the bits of those it keeps. Chunks bound the memory, and nothing is read back before the
// result.
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "../nms.h"
#include "launch.h"

namespace mrb {
namespace {

constexpr int kWord = 64;
constexpr int64_t kChunk = 2048;  // rows per pair of launches, a multiple of kWord
constexpr int kScanThreads = 1024;

// bits[row - begin][word]: boxes 64 word .. 64 word + 63 that come after `row` and whose IoU with it is above
// the threshold.
__global__ void iou_bits(const float4* boxes, const int64_t* labels, int64_t n, int64_t begin, int64_t rows,
                         int64_t words, float threshold, uint64_t* bits) {
  MRB_GRID_LOOP(i, rows * words) {
    const int64_t row = begin + i / words;
    const int64_t word = i % words;
    uint64_t result = 0;
    const int64_t first = word * kWord;
    if (first + kWord > row + 1) {
      const float4 a = boxes[row];
      const float area = box_area(a.x, a.y, a.z, a.w);
      const int64_t last = first + kWord < n ? first + kWord : n;
      for (int64_t j = first > row + 1 ? first : row + 1; j < last; ++j) {
        if (labels != nullptr && labels[j] != labels[row]) continue;
        const float4 b = boxes[j];
        const float intersection =
            intersection_side(a.x, a.z, b.x, b.z) * intersection_side(a.y, a.w, b.y, b.w);
        if (iou_above(intersection, area, box_area(b.x, b.y, b.z, b.w), threshold)) {
          result |= uint64_t(1) << (j - first);
        }
      }
    }
    bits[i] = result;
  }
}

// One block. removed[word]: boxes dropped so far; keep[source[row]] is set for the kept rows.
__global__ void decide_rows(const uint64_t* bits, const int64_t* source, int64_t begin, int64_t rows,
                            int64_t words, uint64_t* removed, bool* keep) {
  __shared__ uint64_t diagonal[kWord];
  __shared__ uint64_t kept;
  for (int64_t local = 0; local < rows; local += kWord) {
    const int count = rows - local < kWord ? static_cast<int>(rows - local) : kWord;
    const int64_t word = (begin + local) / kWord;
    if (threadIdx.x < count) diagonal[threadIdx.x] = bits[(local + threadIdx.x) * words + word];
    __syncthreads();
    if (threadIdx.x == 0) {
      uint64_t dropped = removed[word];
      uint64_t kept_bits = 0;
      for (int i = 0; i < count; ++i) {
        if (dropped >> i & 1) continue;
        kept_bits |= uint64_t(1) << i;
        dropped |= diagonal[i];
      }
      kept = kept_bits;
    }
    __syncthreads();
    const uint64_t kept_bits = kept;
    if (threadIdx.x < count && (kept_bits >> threadIdx.x & 1))
      keep[source[begin + local + threadIdx.x]] = true;
    for (int64_t w = word + 1 + threadIdx.x; w < words; w += blockDim.x) {
      uint64_t dropped = removed[w];
      for (uint64_t left = kept_bits; left != 0; left &= left - 1) {
        dropped |= bits[(local + __ffsll(static_cast<long long>(left)) - 1) * words + w];
      }
      removed[w] = dropped;
    }
    __syncthreads();
  }
}

at::Tensor run_nms(const at::Tensor& boxes, const at::Tensor& scores, const at::Tensor* labels,
                   float threshold) {
  const c10::cuda::CUDAGuard guard(boxes.device());
  const int64_t n = boxes.size(0);
  const auto longs = boxes.options().dtype(at::kLong);
  if (n == 0) return at::empty({0}, longs);
  const at::Tensor order =
      std::get<1>(at::sort(scores, /*stable=*/true, /*dim=*/0, /*descending=*/true)).contiguous();
  const at::Tensor sorted = boxes.to(at::kFloat).index_select(0, order).contiguous();
  const at::Tensor classes = labels != nullptr ? labels->to(at::kLong).index_select(0, order) : at::Tensor();
  const int64_t words = (n + kWord - 1) / kWord;
  const int64_t chunk = std::min(kChunk, n);
  const at::Tensor bits = at::empty({chunk, words}, longs);
  const at::Tensor removed = at::zeros({words}, longs);
  const at::Tensor keep = at::zeros({n}, longs.dtype(at::kBool));
  auto* bit_data = reinterpret_cast<uint64_t*>(bits.data_ptr<int64_t>());
  auto* removed_data = reinterpret_cast<uint64_t*>(removed.data_ptr<int64_t>());
  const int64_t* class_data = labels != nullptr ? classes.const_data_ptr<int64_t>() : nullptr;
  const auto stream = at::cuda::getCurrentCUDAStream();
  for (int64_t begin = 0; begin < n; begin += chunk) {
    const int64_t rows = std::min(chunk, n - begin);
    iou_bits<<<blocks_for(rows * words), kThreads, 0, stream>>>(
        reinterpret_cast<const float4*>(sorted.const_data_ptr<float>()), class_data, n, begin, rows, words,
        threshold, bit_data);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    decide_rows<<<1, kScanThreads, 0, stream>>>(bit_data, order.const_data_ptr<int64_t>(), begin, rows, words,
                                                removed_data, keep.data_ptr<bool>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return at::nonzero(keep).flatten();
}

at::Tensor nms(const at::Tensor& boxes, const at::Tensor& scores, double iou_threshold) {
  check_nms("nms", boxes, scores, iou_threshold);
  return run_nms(boxes, scores, nullptr, static_cast<float>(iou_threshold));
}

at::Tensor batched_nms(const at::Tensor& boxes, const at::Tensor& scores, const at::Tensor& labels,
                       double iou_threshold) {
  check_nms("batched_nms", boxes, scores, iou_threshold);
  check_labels("batched_nms", boxes, labels);
  return run_nms(boxes, scores, &labels, static_cast<float>(iou_threshold));
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("nms", TORCH_FN(mrb::nms));
  m.impl("batched_nms", TORCH_FN(mrb::batched_nms));
}
