// ROIAlign on CUDA, over one map or the levels of a pyramid: one thread per output number, in a single launch
// for all levels. Neighbouring threads take neighbouring columns of planar maps and neighbouring channels of
// channels-last ones. The backward pass adds with atomics, so its last bits vary from run to run
// (torch.use_deterministic_algorithms reports it). Half precision is summed in float32. A region with a NaN,
// an infinite number or an image index outside the batch gives NaN and no gradient.
#include <ATen/AccumulateType.h>
#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <ATen/cuda/Atomic.cuh>
#include <limits>

#include "../fpn_roi_align.h"
#include "launch.h"

namespace mrb {
namespace {

template <typename S, typename T>
struct Maps {
  int64_t images, channels, pooled_h, pooled_w, sampling_ratio;
  S* data[kMaxLevels];
  int64_t height[kMaxLevels], width[kMaxLevels];
  T scale[kMaxLevels];
  bool channels_last[kMaxLevels];

  __device__ S* at(int32_t level, int64_t image, int64_t channel, int64_t y, int64_t x) const {
    const int64_t cells = height[level] * width[level], cell = y * width[level] + x;
    return data[level] + image * channels * cells +
           (channels_last[level] ? cell * channels + channel : channel * cells + cell);
  }
};

// Which number of (R, C, pooled_h, pooled_w) a thread computes, and where it lies.
struct Place {
  int64_t roi, channel, row, column, offset;

  template <typename Maps>
  __device__ Place(int64_t i, const Maps& maps, bool channels_first) {
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

// Calls visit(y, x, weight) for the cells of the bin at `place`; false when the region is unusable.
template <typename S, typename T, typename Visit>
__device__ bool visit_bin(const T* roi, const Maps<S, T>& maps, int32_t level, const Place& place,
                          const Visit& visit) {
  const T scale = maps.scale[level];
  if (!(roi[0] >= T(0) && roi[0] < static_cast<T>(maps.images)) || !finite_roi(roi, scale)) return false;
  const int64_t height = maps.height[level], width = maps.width[level];
  const RoiAxis<T> x(roi[1], roi[3], scale, maps.pooled_w, maps.sampling_ratio);
  const RoiAxis<T> y(roi[2], roi[4], scale, maps.pooled_h, maps.sampling_ratio);
  const T factor = T(1) / (x.grid * y.grid);
  int64_t first_x, last_x, first_y, last_y;
  x.inside(place.column, width, &first_x, &last_x);
  y.inside(place.row, height, &first_y, &last_y);
  for (int64_t iy = first_y; iy < last_y; ++iy) {
    const Tap<T> ty(y.position(place.row, iy), height);
    if (!ty.inside) continue;
    for (int64_t ix = first_x; ix < last_x; ++ix) {
      const Tap<T> tx(x.position(place.column, ix), width);
      if (!tx.inside) continue;
      const T top = (T(1) - ty.share) * factor, bottom = ty.share * factor;
      visit(ty.low, tx.low, top * (T(1) - tx.share));
      visit(ty.low, tx.high, top * tx.share);
      visit(ty.high, tx.low, bottom * (T(1) - tx.share));
      visit(ty.high, tx.high, bottom * tx.share);
    }
  }
  return true;
}

template <typename S, typename T>
__global__ void pool(int64_t total, Maps<const S, T> maps, const T* rois, const int32_t* levels,
                     bool channels_first, S* output) {
  MRB_GRID_LOOP(i, total) {
    const Place place(i, maps, channels_first);
    const T* roi = rois + 5 * place.roi;
    const int32_t level = levels != nullptr ? levels[place.roi] : 0;
    T sum = T(0);
    // The image index is checked in visit_bin, before the first cell is read.
    const bool usable = visit_bin(roi, maps, level, place, [&](int64_t y, int64_t x, T weight) {
      sum += weight * static_cast<T>(*maps.at(level, static_cast<int64_t>(roi[0]), place.channel, y, x));
    });
    output[place.offset] = static_cast<S>(usable ? sum : std::numeric_limits<T>::quiet_NaN());
  }
}

template <typename S, typename T>
__global__ void spread(int64_t total, Maps<T, T> maps, const T* rois, const int32_t* levels,
                       bool channels_first, const S* grad) {
  MRB_GRID_LOOP(i, total) {
    const Place place(i, maps, channels_first);
    const T* roi = rois + 5 * place.roi;
    const int32_t level = levels != nullptr ? levels[place.roi] : 0;
    const T value = static_cast<T>(grad[place.offset]);
    visit_bin(roi, maps, level, place, [&](int64_t y, int64_t x, T weight) {
      if (weight == T(0)) return;
      gpuAtomicAddNoReturn(maps.at(level, static_cast<int64_t>(roi[0]), place.channel, y, x), weight * value);
    });
  }
}

// One level number per row of `boxes`, whose rows are `stride` numbers apart.
__global__ void assign(int64_t total, const float* boxes, int64_t stride, LevelRule rule, int32_t* levels) {
  MRB_GRID_LOOP(i, total) {
    const float* box = boxes + i * stride;
    levels[i] = rule(box[0], box[1], box[2], box[3]);
  }
}

// boxes: (N, 4), or (N, 5) rows that begin with an image index.
at::Tensor levels_of(const at::Tensor& boxes, const LevelRule& rule) {
  at::Tensor levels = at::empty({boxes.size(0)}, boxes.options().dtype(at::kInt));
  if (boxes.size(0) == 0) return levels;
  const at::Tensor rows = boxes.to(at::kFloat).contiguous();
  const int64_t stride = boxes.size(1);
  assign<<<blocks_for(rows.size(0)), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
      rows.size(0), rows.const_data_ptr<float>() + stride - 4, stride, rule,
      levels.mutable_data_ptr<int32_t>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return levels;
}

template <typename S, typename T>
Maps<S, T> describe(const RoiPooling& pooling, const MapShape& shape) {
  Maps<S, T> maps{shape.images, shape.channels, pooling.pooled_h, pooling.pooled_w, pooling.sampling_ratio};
  for (size_t i = 0; i < shape.heights.size(); ++i) {
    maps.height[i] = shape.heights[i];
    maps.width[i] = shape.widths[i];
    maps.scale[i] = static_cast<T>(pooling.scales[i]);
  }
  return maps;
}

}  // namespace

at::Tensor pool_cuda(const RoiPooling& pooling, at::TensorList features, const at::Tensor& rois) {
  const c10::cuda::CUDAGuard guard(rois.device());
  MapShape shape{features[0].size(0), features[0].size(1), {}, {}};
  std::vector<at::Tensor> sources;
  for (const at::Tensor& map : features) {
    shape.heights.push_back(map.size(2));
    shape.widths.push_back(map.size(3));
    sources.push_back(is_channels_last(map) ? map : map.contiguous());
  }
  at::Tensor output =
      at::empty({rois.size(0), shape.channels, pooling.pooled_h, pooling.pooled_w}, features[0].options());
  if (output.numel() == 0) return output;
  const at::Tensor levels = sources.size() > 1 ? levels_of(rois, pooling.rule) : at::Tensor();
  const int32_t* level_data = levels.defined() ? levels.const_data_ptr<int32_t>() : nullptr;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, output.scalar_type(), "roi_align", [&] {
    using T = at::acc_type<scalar_t, true>;
    auto maps = describe<const scalar_t, T>(pooling, shape);
    for (size_t i = 0; i < sources.size(); ++i) {
      maps.data[i] = sources[i].const_data_ptr<scalar_t>();
      maps.channels_last[i] = is_channels_last(sources[i]);
    }
    const at::Tensor regions = rois.to(c10::CppTypeToScalarType<T>::value).contiguous();
    pool<scalar_t, T><<<blocks_for(output.numel()), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
        output.numel(), maps, regions.const_data_ptr<T>(), level_data, maps.channels_last[0],
        output.mutable_data_ptr<scalar_t>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return output;
}

std::vector<at::Tensor> spread_cuda(const RoiPooling& pooling, const at::Tensor& grad, const at::Tensor& rois,
                                    const MapShape& shape, bool channels_last) {
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
    const at::Tensor levels = sums.size() > 1 ? levels_of(rois, pooling.rule) : at::Tensor();
    const int32_t* level_data = levels.defined() ? levels.const_data_ptr<int32_t>() : nullptr;
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad.scalar_type(), "roi_align_backward", [&] {
      using T = at::acc_type<scalar_t, true>;
      auto maps = describe<T, T>(pooling, shape);
      for (size_t i = 0; i < sums.size(); ++i) {
        maps.data[i] = sums[i].mutable_data_ptr<T>();
        maps.channels_last[i] = channels_last;
      }
      const at::Tensor regions = rois.to(sum_type).contiguous();
      spread<scalar_t, T><<<blocks_for(grad.numel()), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
          grad.numel(), maps, regions.const_data_ptr<T>(), level_data, channels_last,
          from.const_data_ptr<scalar_t>());
      C10_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }
  for (at::Tensor& map : sums) map = map.to(grad.scalar_type());
  return sums;
}

namespace {

at::Tensor fpn_levels(const at::Tensor& boxes, int64_t first_level, int64_t levels, int64_t canonical_level,
                      double canonical_size) {
  check_fpn_levels(boxes);
  const LevelRule rule = make_level_rule("fpn_levels", first_level, levels, canonical_level, canonical_size);
  const c10::cuda::CUDAGuard guard(boxes.device());
  return levels_of(boxes, rule);
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("fpn_levels", TORCH_FN(mrb::fpn_levels));
  m.impl("fpn_roi_align", TORCH_FN(mrb::fpn_roi_align<mrb::pool_cuda>));
  m.impl("fpn_roi_align_backward", TORCH_FN(mrb::fpn_roi_align_backward<mrb::spread_cuda>));
}
