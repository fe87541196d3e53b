// What the CPU and CUDA kernels of deform_conv2d share: argument checks and sizes (Dai et al. 2017, section
// 2.1; Zhu et al. 2019, section 3.2, for the mask).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/macros/Macros.h>
#include <c10/util/ArrayRef.h>

#include <array>
#include <optional>
#include <tuple>

#include "checks.h"

namespace mrb {

// Sizes of one call. Channels are split into the `groups` of the convolution and, independently, into
// `offset_groups` that share their offsets. A tap is one (row, column) of the kernel.
struct DeformConv {
  int64_t images, channels, height, width;
  int64_t out_channels, out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int64_t groups, offset_groups;

  C10_HOST_DEVICE int64_t taps() const { return kernel_h * kernel_w; }
  C10_HOST_DEVICE int64_t pixels() const { return out_height * out_width; }
  C10_HOST_DEVICE int64_t group_in() const { return channels / groups; }
  C10_HOST_DEVICE int64_t group_out() const { return out_channels / groups; }
  C10_HOST_DEVICE int64_t channels_per_offset() const { return channels / offset_groups; }
};

constexpr int64_t kMaxGeometry = 1 << 20;
constexpr int64_t kMaxTaps = 1 << 12;

inline void check_like_input(const char* op, const char* name, const at::Tensor& tensor,
                             const at::Tensor& input) {
  check_dtype(op, name, tensor, input.scalar_type());
  check_device(op, name, tensor, "input", input);
}

inline int64_t conv_extent(const char* op, const char* what, int64_t size, int64_t kernel, int64_t stride,
                           int64_t padding, int64_t dilation) {
  check_range(op, "stride", stride, 1, kMaxGeometry);
  check_range(op, "padding", padding, 0, kMaxGeometry);
  check_range(op, "dilation", dilation, 1, kMaxGeometry);
  const int64_t span = size + 2 * padding - dilation * (kernel - 1) - 1;
  TORCH_CHECK_VALUE(span >= 0, op, ": the kernel spans ", dilation * (kernel - 1) + 1,
                    " pixels, more than the ", what, " of the padded input, ", size + 2 * padding);
  return span / stride + 1;
}

// Raises ValueError and TypeError; returns the sizes.
inline DeformConv check_deform_conv(const char* op, const at::Tensor& input, const at::Tensor& offset,
                                    const std::optional<at::Tensor>& mask, const at::Tensor& weight,
                                    at::IntArrayRef stride, at::IntArrayRef padding,
                                    at::IntArrayRef dilation) {
  check_shape(op, "input", input, {-1, -1, -1, -1}, "(B, C, H, W)");
  check_floating(op, "input", input);
  check_shape(op, "weight", weight, {-1, -1, -1, -1}, "(out channels, C / groups, kernel h, kernel w)");
  check_like_input(op, "weight", weight, input);
  for (int64_t d = 1; d < 4; ++d) {
    TORCH_CHECK_VALUE(input.size(d) > 0, op,
                      ": input must have channels, height and width of at least 1, got ", shape_text(input));
  }
  TORCH_CHECK_VALUE(weight.numel() > 0, op, ": weight must not be empty, got ", shape_text(weight));
  const at::IntArrayRef pairs[] = {stride, padding, dilation};
  for (const at::IntArrayRef& pair : pairs) {
    TORCH_CHECK_VALUE(pair.size() == 2, op, ": stride, padding and dilation must hold two values, got ",
                      pair.size());
  }
  DeformConv conv{};
  conv.images = input.size(0);
  conv.channels = input.size(1);
  conv.height = input.size(2);
  conv.width = input.size(3);
  conv.out_channels = weight.size(0);
  conv.kernel_h = weight.size(2);
  conv.kernel_w = weight.size(3);
  TORCH_CHECK_VALUE(conv.kernel_h <= kMaxTaps && conv.kernel_w <= kMaxTaps && conv.taps() <= kMaxTaps, op,
                    ": the kernel must have at most ", kMaxTaps, " taps, got ", shape_text(weight));
  TORCH_CHECK_VALUE(conv.height < INT32_MAX / 2 && conv.width < INT32_MAX / 2 &&
                        (conv.height + 3) * (conv.width + 2) <= INT32_MAX,
                    op, ": a map of input must have fewer than 2^31 pixels, got ", shape_text(input));
  TORCH_CHECK_VALUE(conv.channels % weight.size(1) == 0, op, ": the channels of input, ", conv.channels,
                    ", must be a multiple of weight.size(1), ", weight.size(1));
  conv.groups = conv.channels / weight.size(1);
  TORCH_CHECK_VALUE(conv.out_channels % conv.groups == 0, op, ": the output channels of weight, ",
                    conv.out_channels, ", must be a multiple of the groups, ", conv.groups);
  std::tie(conv.stride_h, conv.stride_w) = std::make_tuple(stride[0], stride[1]);
  std::tie(conv.pad_h, conv.pad_w) = std::make_tuple(padding[0], padding[1]);
  std::tie(conv.dilation_h, conv.dilation_w) = std::make_tuple(dilation[0], dilation[1]);
  conv.out_height =
      conv_extent(op, "height", conv.height, conv.kernel_h, conv.stride_h, conv.pad_h, conv.dilation_h);
  conv.out_width =
      conv_extent(op, "width", conv.width, conv.kernel_w, conv.stride_w, conv.pad_w, conv.dilation_w);
  TORCH_CHECK_VALUE(conv.out_height <= INT32_MAX / conv.out_width, op,
                    ": a map of the result must have fewer than 2^31 pixels, got ", conv.out_height, " x ",
                    conv.out_width);
  check_shape(op, "offset", offset, {conv.images, -1, conv.out_height, conv.out_width},
              "(B, 2 * deformable groups * kernel taps, out height, out width)");
  check_floating(op, "offset", offset);
  check_device(op, "offset", offset, "input", input);
  const int64_t per_group = 2 * conv.taps();
  TORCH_CHECK_VALUE(offset.size(1) > 0 && offset.size(1) % per_group == 0, op,
                    ": offset must have a multiple of 2 * kernel taps (", per_group, ") channels, got ",
                    offset.size(1));
  conv.offset_groups = offset.size(1) / per_group;
  TORCH_CHECK_VALUE(conv.channels % conv.offset_groups == 0, op, ": the channels of input, ", conv.channels,
                    ", must be a multiple of the deformable groups, ", conv.offset_groups);
  if (mask.has_value()) {
    check_shape(op, "mask", *mask,
                {conv.images, conv.offset_groups * conv.taps(), conv.out_height, conv.out_width},
                "(B, deformable groups * kernel taps, out height, out width)");
    check_floating(op, "mask", *mask);
    check_device(op, "mask", *mask, "input", input);
  }
  return conv;
}

inline void check_deform_bias(const char* op, const DeformConv& conv, const at::Tensor& input,
                              const std::optional<at::Tensor>& bias) {
  if (!bias.has_value()) return;
  check_shape(op, "bias", *bias, {conv.out_channels}, "(out channels,)");
  check_like_input(op, "bias", *bias, input);
}

inline void check_deform_grad(const char* op, const DeformConv& conv, const at::Tensor& input,
                              const at::Tensor& grad) {
  check_shape(op, "grad", grad, {conv.images, conv.out_channels, conv.out_height, conv.out_width},
              "(B, out channels, out height, out width)");
  check_like_input(op, "grad", grad, input);
}

inline void check_deform_needed(const char* op, const std::optional<at::Tensor>& mask,
                                const std::array<bool, 4>& needed) {
  TORCH_CHECK_VALUE(mask.has_value() || !needed[2], op, ": there is no mask to have a gradient");
}

// Part of the derivatives (B, offset groups, taps, 3, pixels) with respect to y, x and factor, in the shape
// and dtype of offset or mask.
inline at::Tensor take_tap_grads(const at::Tensor& tap_grads, int64_t first, int64_t count,
                                 const at::Tensor& like) {
  at::Tensor result = at::empty(like.sizes(), like.options());
  result.view({tap_grads.size(0), tap_grads.size(1), tap_grads.size(2), count, tap_grads.size(4)})
      .copy_(tap_grads.narrow(3, first, count));
  return result;
}

// Gradients of input, offset, mask and weight; those not needed have no elements.
using DeformGrads = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

}  // namespace mrb
