// RoIAlign on CUDA, over one map or the levels of an FPN: one thread per output element, in a single launch
// for all levels. Neighbouring threads take neighbouring columns of planar features and neighbouring channels
// of channels-last ones. The backward pass adds with atomics, so its last bits vary from run to run
// (torch.use_deterministic_algorithms reports it). Half precision is summed in float32. An RoI with a NaN, an
// infinite value or an image index outside the batch gives NaN and no gradient.
#include <ATen/AccumulateType.h>
#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <ATen/cuda/Atomic.cuh>
#include <limits>

#include "../memory_format.h"
#include "../roi_align.h"
#include "launch.h"

namespace mrb {
namespace {

template <typename S, typename T>
struct Levels {
  int64_t images, channels, pooled_h, pooled_w, sampling_ratio;
  S* data[kMaxLevels];
  int64_t height[kMaxLevels], width[kMaxLevels];
  T scale[kMaxLevels];
  bool channels_last[kMaxLevels];

  __device__ S* at(int32_t level, int64_t image, int64_t channel, int64_t y, int64_t x) const {
    const int64_t plane = height[level] * width[level], pixel = y * width[level] + x;
    return data[level] + image * channels * plane +
           (channels_last[level] ? pixel * channels + channel : channel * plane + pixel);
  }
};

// Which element of (R, C, pooled_h, pooled_w) a thread computes, and its offset in memory.
struct OutputIndex {
  int64_t roi, channel, row, column, offset;

  template <typename Levels>
  __device__ OutputIndex(int64_t i, const Levels& maps, bool channels_first) {
    const int64_t area = maps.pooled_h * maps.pooled_w;
    roi = i / (area * maps.channels);
    const int64_t rest = i % (area * maps.channels);
    channel = channels_first ? rest % maps.channels : rest / area;
    const int64_t bin = channels_first ? rest / maps.channels : rest % area;
    row = bin / maps.pooled_w;
    column = bin % maps.pooled_w;
    offset = (roi * maps.channels + channel) * area + bin;
  }
};

// Calls visit(y, x, weight) for the pixels of the bin at `index`; false when the RoI is unusable.
template <typename S, typename T, typename Visit>
__device__ bool visit_bin(const T* roi, const Levels<S, T>& maps, int32_t level, const OutputIndex& index,
                          const Visit& visit) {
  const T scale = maps.scale[level];
  if (!(roi[0] >= T(0) && roi[0] < static_cast<T>(maps.images)) || !finite_roi(roi, scale)) return false;
  const int64_t height = maps.height[level], width = maps.width[level];
  const RoiAxis<T> x(roi[1], roi[3], scale, maps.pooled_w, maps.sampling_ratio);
  const RoiAxis<T> y(roi[2], roi[4], scale, maps.pooled_h, maps.sampling_ratio);
  const T factor = T(1) / (x.grid * y.grid);
  int64_t first_x, last_x, first_y, last_y;
  x.inside(index.column, width, &first_x, &last_x);
  y.inside(index.row, height, &first_y, &last_y);
  for (int64_t iy = first_y; iy < last_y; ++iy) {
    const T sample_y = y.position(index.row, iy);
    if (!roi_align_reads(sample_y, height)) continue;
    const BilinearTap<T> ty = roi_align_tap(sample_y, height);
    for (int64_t ix = first_x; ix < last_x; ++ix) {
      const T sample_x = x.position(index.column, ix);
      if (!roi_align_reads(sample_x, width)) continue;
      const BilinearTap<T> tx = roi_align_tap(sample_x, width);
      const T top = (T(1) - ty.weight) * factor, bottom = ty.weight * factor;
      visit(ty.low, tx.low, top * (T(1) - tx.weight));
      visit(ty.low, tx.high, top * tx.weight);
      visit(ty.high, tx.low, bottom * (T(1) - tx.weight));
      visit(ty.high, tx.high, bottom * tx.weight);
    }
  }
  return true;
}

template <typename S, typename T>
__global__ void pool(int64_t total, Levels<const S, T> maps, const T* rois, const int32_t* levels,
                     bool channels_first, S* output) {
  MRB_GRID_LOOP(i, total) {
    const OutputIndex index(i, maps, channels_first);
    const T* roi = rois + 5 * index.roi;
    const int32_t level = levels != nullptr ? levels[index.roi] : 0;
    T sum = T(0);
    // The image index is checked in visit_bin, before the first pixel is read.
    const bool usable = visit_bin(roi, maps, level, index, [&](int64_t y, int64_t x, T weight) {
      sum += weight * static_cast<T>(*maps.at(level, static_cast<int64_t>(roi[0]), index.channel, y, x));
    });
    output[index.offset] = static_cast<S>(usable ? sum : std::numeric_limits<T>::quiet_NaN());
  }
}

template <typename S, typename T>
__global__ void scatter(int64_t total, Levels<T, T> maps, const T* rois, const int32_t* levels,
                        bool channels_first, const S* grad) {
  MRB_GRID_LOOP(i, total) {
    const OutputIndex index(i, maps, channels_first);
    const T* roi = rois + 5 * index.roi;
    const int32_t level = levels != nullptr ? levels[index.roi] : 0;
    const T value = static_cast<T>(grad[index.offset]);
    visit_bin(roi, maps, level, index, [&](int64_t y, int64_t x, T weight) {
      if (weight == T(0)) return;
      gpuAtomicAddNoReturn(maps.at(level, static_cast<int64_t>(roi[0]), index.channel, y, x), weight * value);
    });
  }
}

template <typename S, typename T>
Levels<S, T> describe(const RoiAlignArgs& args, const FeatureShape& shape) {
  Levels<S, T> maps{shape.images, shape.channels, args.pooled_h, args.pooled_w, args.sampling_ratio};
  for (size_t i = 0; i < shape.heights.size(); ++i) {
    maps.height[i] = shape.heights[i];
    maps.width[i] = shape.widths[i];
    maps.scale[i] = static_cast<T>(args.scales[i]);
  }
  return maps;
}

}  // namespace

at::Tensor roi_align_cuda(const RoiAlignArgs& args, at::TensorList features, const at::Tensor& rois) {
  const c10::cuda::CUDAGuard guard(rois.device());
  FeatureShape shape{features[0].size(0), features[0].size(1), {}, {}};
  std::vector<at::Tensor> sources;
  for (const at::Tensor& map : features) {
    shape.heights.push_back(map.size(2));
    shape.widths.push_back(map.size(3));
    sources.push_back(is_channels_last(map) ? map : map.contiguous());
  }
  at::Tensor output =
      at::empty({rois.size(0), shape.channels, args.pooled_h, args.pooled_w}, features[0].options());
  if (output.numel() == 0) return output;
  const at::Tensor levels = sources.size() > 1 ? assign_levels_cuda(rois, args.rule) : at::Tensor();
  const int32_t* level_data = levels.defined() ? levels.const_data_ptr<int32_t>() : nullptr;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, output.scalar_type(), "roi_align", [&] {
    using T = at::acc_type<scalar_t, true>;
    auto maps = describe<const scalar_t, T>(args, shape);
    for (size_t i = 0; i < sources.size(); ++i) {
      maps.data[i] = sources[i].const_data_ptr<scalar_t>();
      maps.channels_last[i] = is_channels_last(sources[i]);
    }
    const at::Tensor typed_rois = rois.to(c10::CppTypeToScalarType<T>::value).contiguous();
    pool<scalar_t, T><<<blocks_for(output.numel()), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
        output.numel(), maps, typed_rois.const_data_ptr<T>(), level_data, maps.channels_last[0],
        output.mutable_data_ptr<scalar_t>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return output;
}

std::vector<at::Tensor> roi_align_backward_cuda(const RoiAlignArgs& args, const at::Tensor& grad,
                                                const at::Tensor& rois, const FeatureShape& shape,
                                                bool channels_last) {
  at::globalContext().alertNotDeterministic("maskrcnn_benchmark::roi_align_backward on CUDA");
  const c10::cuda::CUDAGuard guard(grad.device());
  const auto sum_type = grad.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto format = channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  std::vector<at::Tensor> sums;
  for (size_t i = 0; i < shape.heights.size(); ++i) {
    sums.push_back(at::empty({shape.images, shape.channels, shape.heights[i], shape.widths[i]},
                             grad.options().dtype(sum_type), format)
                       .zero_());
  }
  if (grad.numel() > 0) {
    const at::Tensor from = grad.contiguous();
    const at::Tensor levels = sums.size() > 1 ? assign_levels_cuda(rois, args.rule) : at::Tensor();
    const int32_t* level_data = levels.defined() ? levels.const_data_ptr<int32_t>() : nullptr;
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad.scalar_type(), "roi_align_backward", [&] {
      using T = at::acc_type<scalar_t, true>;
      auto maps = describe<T, T>(args, shape);
      for (size_t i = 0; i < sums.size(); ++i) {
        maps.data[i] = sums[i].mutable_data_ptr<T>();
        maps.channels_last[i] = channels_last;
      }
      const at::Tensor typed_rois = rois.to(sum_type).contiguous();
      scatter<scalar_t, T><<<blocks_for(grad.numel()), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
          grad.numel(), maps, typed_rois.const_data_ptr<T>(), level_data, channels_last,
          from.const_data_ptr<scalar_t>());
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }
  for (at::Tensor& map : sums) map = map.to(grad.scalar_type());
  return sums;
}

}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("roi_align", TORCH_FN(mrb::roi_align<mrb::roi_align_cuda>));
  m.impl("roi_align_backward", TORCH_FN(mrb::roi_align_backward<mrb::roi_align_backward_cuda>));
}
