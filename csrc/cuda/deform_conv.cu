// Deformable convolution on CUDA: a kernel writes the sampled columns of some images, cuBLAS multiplies them.
// One thread samples a tap of a pixel for several channels, so that positions are computed once. In the
// backward pass a thread walks the channels of its tap: it adds to the map with atomics, so that last bits
// vary from run to run (torch.use_deterministic_algorithms reports it), and sums the gradients of its tap
// without. Half precision is sampled and summed in float32.
#include <ATen/AccumulateType.h>
#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <ATen/cuda/Atomic.cuh>

#include "../bilinear.h"
#include "../deform_conv.h"
#include "../kernel_guard.h"
#include "../memory_format.h"
#include "launch.h"

namespace mrb {
namespace {

constexpr int64_t kChannelsPerThread = 8;
constexpr int64_t kColumnValues = int64_t{1} << 27;  // of the columns in memory at a time
constexpr int64_t kEnoughThreads = 1 << 18;
constexpr int64_t kMaxSlices = 16;

// The four pixels that a tap reads, and the weights of the lower and the right ones. A pixel outside is not
// read.
template <typename T>
struct Neighbours {
  int64_t pixel[4];
  bool inside[4];
  T down, right;

  __device__ Neighbours(T y, T x, int64_t height, int64_t width) {
    const bool reads = y > T(-1) && y < static_cast<T>(height) && x > T(-1) && x < static_cast<T>(width);
    const int64_t low_y = reads ? static_cast<int64_t>(floor(y)) : 0;
    const int64_t low_x = reads ? static_cast<int64_t>(floor(x)) : 0;
    for (int i = 0; i < 4; ++i) {
      const int64_t row = low_y + i / 2, column = low_x + i % 2;
      inside[i] = reads && row >= 0 && row < height && column >= 0 && column < width;
      pixel[i] = row * width + column;
    }
    // A NaN stays one, a tap outside reads zeros.
    down = reads ? y - static_cast<T>(low_y) : (y != y ? y : T(0));
    right = reads ? x - static_cast<T>(low_x) : (x != x ? x : T(0));
  }

  template <typename S>
  __device__ void read(const S* map, T (&values)[4]) const {
    for (int i = 0; i < 4; ++i) values[i] = inside[i] ? static_cast<T>(map[pixel[i]]) : T(0);
  }

  __device__ BilinearWeights<T> weights(T factor) const { return BilinearWeights<T>(down, right, factor); }
};

// Which tap a thread works on: part of an offset group, image, tap, pixel; pixels change fastest.
struct Tap {
  int64_t pixel, tap, image, group, part;

  __device__ Tap(int64_t i, const DeformConv& conv, int64_t images) {
    pixel = i % conv.pixels();
    i /= conv.pixels();
    tap = i % conv.taps();
    i /= conv.taps();
    image = i % images;
    i /= images;
    group = i % conv.offset_groups;
    part = i / conv.offset_groups;
  }

  // `offset` and `mask` (may be null) belong to all images; `first` is the one that `image` counts from.
  template <typename T>
  __device__ Neighbours<T> neighbours(const DeformConv& conv, int64_t first, const T* offset) const {
    const T* dy = offset +
                  (((first + image) * conv.offset_groups + group) * conv.taps() + tap) * 2 * conv.pixels() +
                  pixel;
    const int64_t row = pixel / conv.out_width, column = pixel % conv.out_width;
    const T y = static_cast<T>(row * conv.stride_h - conv.pad_h + tap / conv.kernel_w * conv.dilation_h);
    const T x = static_cast<T>(column * conv.stride_w - conv.pad_w + tap % conv.kernel_w * conv.dilation_w);
    return Neighbours<T>(y + dy[0], x + dy[conv.pixels()], conv.height, conv.width);
  }

  template <typename T>
  __device__ T factor(const DeformConv& conv, int64_t first, const T* mask) const {
    if (mask == nullptr) return T(1);
    return mask[(((first + image) * conv.offset_groups + group) * conv.taps() + tap) * conv.pixels() + pixel];
  }

  // Channels [begin, end) of this thread, when a part has `size` of them.
  __device__ void channels(const DeformConv& conv, int64_t size, int64_t* begin, int64_t* end) const {
    const int64_t all = conv.channels_per_offset(), low = part * size;
    *begin = group * all + low;
    *end = group * all + (low + size < all ? low + size : all);
  }
};

// columns: (C * taps, images * pixels).
template <typename S, typename T>
__global__ void sample(int64_t total, DeformConv conv, int64_t first, int64_t images, const S* input,
                       const T* offset, const T* mask, S* columns) {
  const int64_t plane = conv.height * conv.width;
  MRB_GRID_LOOP(i, total) {
    const Tap tap(i, conv, images);
    const Neighbours<T> from = tap.neighbours(conv, first, offset);
    const BilinearWeights<T> w = from.weights(tap.factor(conv, first, mask));
    T values[4];
    int64_t c, end;
    tap.channels(conv, kChannelsPerThread, &c, &end);
    for (; c < end; ++c) {
      from.read(input + ((first + tap.image) * conv.channels + c) * plane, values);
      const T sum =
          w.up_left * values[0] + w.up_right * values[1] + w.down_left * values[2] + w.down_right * values[3];
      columns[((c * conv.taps() + tap.tap) * images + tap.image) * conv.pixels() + tap.pixel] =
          static_cast<S>(sum);
    }
  }
}

// grads: (C * taps, images * pixels); to: (images, C, H, W) or null; tap_grads: (parts, images, offset
// groups, taps, 3, pixels) or null: derivatives with respect to y, x and factor.
template <typename S, typename T>
__global__ void scatter(int64_t total, DeformConv conv, int64_t first, int64_t images, int64_t part_size,
                        const S* grads, const S* input, const T* offset, const T* mask, T* to, T* tap_grads) {
  const int64_t plane = conv.height * conv.width;
  MRB_GRID_LOOP(i, total) {
    const Tap tap(i, conv, images);
    const Neighbours<T> from = tap.neighbours(conv, first, offset);
    const T factor = tap.factor(conv, first, mask);
    const BilinearWeights<T> w = from.weights(factor);
    const T weights[4] = {w.up_left, w.up_right, w.down_left, w.down_right};
    T values[4], sums[4] = {T(0), T(0), T(0), T(0)};
    int64_t c, end;
    tap.channels(conv, part_size, &c, &end);
    for (; c < end; ++c) {
      const T grad = static_cast<T>(
          grads[((c * conv.taps() + tap.tap) * images + tap.image) * conv.pixels() + tap.pixel]);
      if (tap_grads != nullptr) {
        from.read(input + ((first + tap.image) * conv.channels + c) * plane, values);
        for (int k = 0; k < 4; ++k) sums[k] += grad * values[k];
      }
      if (to != nullptr) {
        T* map = to + (tap.image * conv.channels + c) * plane;
        for (int k = 0; k < 4; ++k) {
          if (from.inside[k]) gpuAtomicAddNoReturn(map + from.pixel[k], weights[k] * grad);
        }
      }
    }
    if (tap_grads == nullptr) continue;
    const T down = from.down, right = from.right, up = T(1) - down, left = T(1) - right;
    T* out =
        tap_grads +
        ((((tap.part * images + tap.image) * conv.offset_groups + tap.group) * conv.taps() + tap.tap) * 3) *
            conv.pixels() +
        tap.pixel;
    out[0] = factor * (left * (sums[2] - sums[0]) + right * (sums[3] - sums[1]));
    out[conv.pixels()] = factor * (up * (sums[1] - sums[0]) + down * (sums[3] - sums[2]));
    out[2 * conv.pixels()] =
        up * (left * sums[0] + right * sums[1]) + down * (left * sums[2] + right * sums[3]);
  }
}

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Images whose columns are in memory at a time.
int64_t images_at_a_time(const DeformConv& conv) {
  const int64_t values = conv.channels * conv.taps() * conv.pixels();
  const int64_t limit = std::min(kColumnValues / values, INT32_MAX / conv.pixels());
  return std::clamp<int64_t>(limit, 1, std::max<int64_t>(conv.images, 1));
}

// What both passes read, contiguous; offsets and masks of type T.
struct Sources {
  at::Tensor input, offset, mask;

  Sources(const at::Tensor& maps, const at::Tensor& offsets, const std::optional<at::Tensor>& factors,
          at::ScalarType type)
      : input(maps.contiguous()), offset(offsets.to(type).contiguous()) {
    if (factors.has_value()) mask = factors->to(type).contiguous();
  }

  template <typename T>
  const T* mask_data() const {
    return mask.defined() ? mask.const_data_ptr<T>() : nullptr;
  }
};

template <typename S, typename T>
void sample_columns(const DeformConv& conv, const Sources& from, int64_t first, int64_t images,
                    at::Tensor& columns) {
  const int64_t parts = divide_up(conv.channels_per_offset(), kChannelsPerThread);
  const int64_t total = parts * conv.offset_groups * images * conv.taps() * conv.pixels();
  sample<S, T><<<blocks_for(total), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
      total, conv, first, images, from.input.const_data_ptr<S>(), from.offset.const_data_ptr<T>(),
      from.mask_data<T>(), columns.mutable_data_ptr<S>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// (groups, in * taps, images * pixels).
at::Tensor empty_columns(const DeformConv& conv, int64_t images, const at::TensorOptions& options) {
  return at::empty({conv.groups, conv.group_in() * conv.taps(), images * conv.pixels()}, options);
}

at::Tensor deform_conv2d(const at::Tensor& input, const at::Tensor& offset,
                         const std::optional<at::Tensor>& mask, const at::Tensor& weight,
                         const std::optional<at::Tensor>& bias, at::IntArrayRef stride,
                         at::IntArrayRef padding, at::IntArrayRef dilation) {
  const char* op = "deform_conv2d";
  const DeformConv conv = check_deform_conv(op, input, offset, mask, weight, stride, padding, dilation);
  check_deform_bias(op, conv, input, bias);
  const c10::cuda::CUDAGuard guard(input.device());
  const KernelGuard kernel_guard;
  at::Tensor output = at::empty({conv.images, conv.out_channels, conv.out_height, conv.out_width},
                                input.options(), memory_format_of(input));
  if (output.numel() == 0) return output;
  const int64_t out = conv.group_out(), chunk = images_at_a_time(conv);
  const at::Tensor matrices = weight.reshape({conv.groups, out, conv.group_in() * conv.taps()});
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.scalar_type(), "deform_conv2d", [&] {
    using T = at::acc_type<scalar_t, true>;
    const Sources from(input, offset, mask, c10::CppTypeToScalarType<T>::value);
    for (int64_t first = 0; first < conv.images; first += chunk) {
      const int64_t images = std::min(chunk, conv.images - first);
      at::Tensor columns = empty_columns(conv, images, input.options());
      sample_columns<scalar_t, T>(conv, from, first, images, columns);
      const at::Tensor product =
          at::bmm(matrices, columns).view({conv.out_channels, images, conv.out_height, conv.out_width});
      output.narrow(0, first, images).copy_(product.transpose(0, 1));
    }
  });
  if (bias.has_value()) output.add_(bias->view({1, -1, 1, 1}));
  return output;
}

// Gradients of one call as they grow, of type T; undefined where not needed.
struct Grads {
  at::Tensor input, tap_grads, weight;
};

template <typename S, typename T>
void scatter_columns(const DeformConv& conv, const Sources& from, int64_t first, int64_t images,
                     const at::Tensor& columns, Grads& grads) {
  const int64_t taps = conv.offset_groups * images * conv.taps() * conv.pixels();
  const int64_t slices = std::clamp<int64_t>(kEnoughThreads / taps, 1, kMaxSlices);
  const int64_t part_size = divide_up(conv.channels_per_offset(), slices);
  const int64_t parts = divide_up(conv.channels_per_offset(), part_size);
  const auto options = columns.options().dtype(c10::CppTypeToScalarType<T>::value);
  at::Tensor maps, tap_grads;
  if (grads.input.defined()) maps = at::zeros({images, conv.channels, conv.height, conv.width}, options);
  if (grads.tap_grads.defined()) {
    tap_grads = at::empty({parts, images, conv.offset_groups, conv.taps(), 3, conv.pixels()}, options);
  }
  scatter<S, T><<<blocks_for(parts * taps), kThreads, 0, at::cuda::getCurrentCUDAStream()>>>(
      parts * taps, conv, first, images, part_size, columns.const_data_ptr<S>(),
      from.input.const_data_ptr<S>(), from.offset.const_data_ptr<T>(), from.mask_data<T>(),
      maps.defined() ? maps.mutable_data_ptr<T>() : nullptr,
      tap_grads.defined() ? tap_grads.mutable_data_ptr<T>() : nullptr);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  if (maps.defined()) grads.input.narrow(0, first, images).copy_(maps);
  if (tap_grads.defined()) grads.tap_grads.narrow(0, first, images).copy_(tap_grads.sum(0));
}

template <typename S, typename T>
void backward_all(const DeformConv& conv, const Sources& from, const at::Tensor& grad,
                  const at::Tensor& weight, Grads& grads) {
  const int64_t out = conv.group_out(), rows = conv.group_in() * conv.taps(), chunk = images_at_a_time(conv);
  const at::Tensor matrices = weight.reshape({conv.groups, out, rows});
  for (int64_t first = 0; first < conv.images; first += chunk) {
    const int64_t images = std::min(chunk, conv.images - first);
    const at::Tensor here =
        grad.narrow(0, first, images).transpose(0, 1).reshape({conv.groups, out, images * conv.pixels()});
    if (grads.input.defined() || grads.tap_grads.defined()) {
      scatter_columns<S, T>(conv, from, first, images, at::bmm(matrices.transpose(1, 2), here), grads);
    }
    if (grads.weight.defined()) {
      at::Tensor columns = empty_columns(conv, images, grad.options());
      sample_columns<S, T>(conv, from, first, images, columns);
      grads.weight.add_(at::bmm(here, columns.transpose(1, 2)));
    }
  }
}

DeformGrads deform_conv2d_backward(const at::Tensor& grad, const at::Tensor& input, const at::Tensor& offset,
                                   const std::optional<at::Tensor>& mask, const at::Tensor& weight,
                                   at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                                   std::array<bool, 4> needed) {
  const char* op = "deform_conv2d_backward";
  const DeformConv conv = check_deform_conv(op, input, offset, mask, weight, stride, padding, dilation);
  check_deform_grad(op, conv, input, grad);
  check_deform_needed(op, mask, needed);
  if (needed[0])
    at::globalContext().alertNotDeterministic("maskrcnn_benchmark::deform_conv2d_backward on CUDA");
  const c10::cuda::CUDAGuard guard(input.device());
  const KernelGuard kernel_guard;
  const auto sum_type = input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto options = input.options().dtype(sum_type);
  Grads grads;
  if (needed[0]) grads.input = at::empty(input.sizes(), input.options(), memory_format_of(input));
  if (needed[1] || needed[2]) {
    grads.tap_grads = at::empty({conv.images, conv.offset_groups, conv.taps(), 3, conv.pixels()}, options);
  }
  if (needed[3]) {
    grads.weight = at::zeros({conv.groups, conv.group_out(), conv.group_in() * conv.taps()}, options);
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.scalar_type(), "deform_conv2d_backward",
                                  [&] {
                                    using T = at::acc_type<scalar_t, true>;
                                    const Sources from(input, offset, mask, sum_type);
                                    backward_all<scalar_t, T>(conv, from, grad.contiguous(), weight, grads);
                                  });
  const auto none = [&] { return at::empty({0}, input.options()); };
  return {needed[0] ? grads.input : none(),
          needed[1] ? take_tap_grads(grads.tap_grads, 0, 2, offset) : none(),
          needed[2] ? take_tap_grads(grads.tap_grads, 2, 1, *mask) : none(),
          needed[3] ? grads.weight.view(weight.sizes()).to(weight.scalar_type()) : none()};
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("deform_conv2d", TORCH_FN(mrb::deform_conv2d));
  m.impl("deform_conv2d_backward", TORCH_FN(mrb::deform_conv2d_backward));
}
