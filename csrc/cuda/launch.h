// Launch geometry of the CUDA kernels: one thread per element in a grid-stride loop with 64-bit indices.
#pragma once

#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <cstdint>

namespace mrb {

constexpr int kThreads = 256;

inline unsigned int blocks_for(int64_t elements) {
  const int64_t blocks = (elements + kThreads - 1) / kThreads;
  return static_cast<unsigned int>(std::max<int64_t>(1, std::min<int64_t>(blocks, 65536)));
}

#define MRB_GRID_LOOP(i, n)                                                     \
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, \
               mrb_step = static_cast<int64_t>(gridDim.x) * blockDim.x;         \
       i < (n); i += mrb_step)

}  // namespace mrb
