// Which memory format the kernels read and write: channels-last only for (B, C, H, W) that is stored so and
// not also plane by plane.
#pragma once

#include <ATen/core/Tensor.h>

namespace mrb {

inline bool is_channels_last(const at::Tensor& features) {
  return features.is_contiguous(at::MemoryFormat::ChannelsLast) && !features.is_contiguous();
}

inline at::MemoryFormat memory_format_of(const at::Tensor& features) {
  return is_channels_last(features) ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

}  // namespace mrb
