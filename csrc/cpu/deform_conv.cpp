// Deformable convolution on the CPU: tiles of sampled columns, multiplied while they are in the cache. There
// is never a column buffer of a whole image.
//
// The backward pass gives each block of channels to one task, which alone adds to its part of the map; the
// gradients of the taps collect one sum per block. No atomics: a run gives the same bits again, and another
// number of threads changes no more than the rounding of the matrix products.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "../kernel_guard.h"
#include "../memory_format.h"
#include "deform_sample.h"

namespace mrb {
namespace {

constexpr int64_t kTileValues = 1 << 20;  // of a tile of columns
constexpr int64_t kBlockChannels = 32;    // min channels of a backward task
constexpr int64_t kMaxBlocks = 16;
constexpr int64_t kMaxImageGroups = 4;            // with separate sums of the gradient of the weight
constexpr int64_t kMapValues = int64_t{1} << 26;  // of the bordered maps in memory at a time

MRB_MULTIVERSION void sample_tile(const SampleShape& s, const TilePlan<float>& plan, const float* map,
                                  float* out) {
  sample(s, plan, map, out);
}

MRB_MULTIVERSION void sample_tile(const SampleShape& s, const TilePlan<double>& plan, const double* map,
                                  double* out) {
  sample(s, plan, map, out);
}

struct Needs {
  bool input, taps, weight;
};

template <typename T>
MRB_INLINE void scatter_needed(Needs needs, const SampleShape& s, const TilePlan<T>& plan, const T* grad,
                               const T* map, T* to, T* columns, const TapGrads<T>& tap_grads) {
  if (needs.taps && needs.input && needs.weight) {
    scatter<T, true, true, true>(s, plan, grad, map, to, columns, tap_grads);
  } else if (needs.taps && needs.weight) {
    scatter<T, true, false, true>(s, plan, grad, map, to, columns, tap_grads);
  } else if (needs.input && needs.weight) {
    scatter<T, false, true, true>(s, plan, grad, map, to, columns, tap_grads);
  } else if (needs.taps && needs.input) {
    scatter<T, true, true, false>(s, plan, grad, map, to, columns, tap_grads);
  } else if (needs.taps) {
    scatter<T, true, false, false>(s, plan, grad, map, to, columns, tap_grads);
  } else if (needs.input) {
    scatter<T, false, true, false>(s, plan, grad, map, to, columns, tap_grads);
  } else {
    sample(s, plan, map, columns);
  }
}

MRB_MULTIVERSION void scatter_tile(Needs needs, const SampleShape& s, const TilePlan<float>& plan,
                                   const float* grad, const float* map, float* to, float* columns,
                                   const TapGrads<float>& tap_grads) {
  scatter_needed(needs, s, plan, grad, map, to, columns, tap_grads);
}

MRB_MULTIVERSION void scatter_tile(Needs needs, const SampleShape& s, const TilePlan<double>& plan,
                                   const double* grad, const double* map, double* to, double* columns,
                                   const TapGrads<double>& tap_grads) {
  scatter_needed(needs, s, plan, grad, map, to, columns, tap_grads);
}

// The part of (B, rows, columns, C) inside the border, as (B, C, H, W).
at::Tensor inner(const at::Tensor& maps, const DeformConv& conv) {
  return maps.narrow(1, 1, conv.height).narrow(2, 1, conv.width).permute({0, 3, 1, 2});
}

at::Tensor bordered_maps(const DeformConv& conv, int64_t images, at::ScalarType type) {
  const Bordered border(conv);
  return at::zeros({images, border.rows, border.columns, conv.channels}, at::TensorOptions().dtype(type));
}

// (B, channels, height, width) -> (B, channels, pixels), a view of a planar or channels-last tensor.
at::Tensor by_pixel(const at::Tensor& maps) {
  if (memory_format_of(maps) == at::MemoryFormat::Contiguous)
    return maps.view({maps.size(0), maps.size(1), maps.size(2) * maps.size(3)});
  return maps.permute({0, 2, 3, 1})
      .view({maps.size(0), maps.size(2) * maps.size(3), maps.size(1)})
      .transpose(1, 2);
}

at::Tensor dense(const at::Tensor& maps) { return maps.contiguous(memory_format_of(maps)); }

// Channels of one group of the convolution, and inside them of one offset group.
struct Segment {
  int64_t group, offset_group, begin, count;
};

// The channels [begin, end), split where a group or an offset group ends.
std::vector<Segment> segments_of(const DeformConv& conv, int64_t begin, int64_t end) {
  std::vector<Segment> segments;
  const int64_t in = conv.group_in(), per_offset = conv.channels_per_offset();
  for (int64_t c = begin; c < end;) {
    const int64_t stop = std::min({end, (c / in + 1) * in, (c / per_offset + 1) * per_offset});
    segments.push_back({c / in, c / per_offset, c, stop - c});
    c = stop;
  }
  return segments;
}

template <typename T>
const T* channel_data(const at::Tensor& tensor, int64_t image, int64_t channel, int64_t pixels) {
  if (!tensor.defined()) return nullptr;
  return tensor.const_data_ptr<T>() + (image * tensor.size(1) + channel) * pixels;
}

int64_t tile_pixels(int64_t values_per_pixel, int64_t pixels) {
  const int64_t count = std::clamp<int64_t>(kTileValues / values_per_pixel / 64 * 64, 64, 1024);
  return std::min(count, pixels);
}

// Images whose bordered maps are in memory at a time.
int64_t images_at_a_time(const DeformConv& conv) {
  const int64_t values = Bordered(conv).area() * conv.channels;
  return std::clamp<int64_t>(kMapValues / values, 1, std::max<int64_t>(conv.images, 1));
}

// What both passes read. Offsets, masks and bordered maps are of type T, the type of the sums.
struct Sources {
  at::Tensor input, offset, mask;

  template <typename T>
  static Sources make(const at::Tensor& input, const at::Tensor& offset,
                      const std::optional<at::Tensor>& mask) {
    constexpr auto type = c10::CppTypeToScalarType<T>::value;
    return {input, offset.to(type).contiguous(),
            mask.has_value() ? mask->to(type).contiguous() : at::Tensor()};
  }

  template <typename T>
  void plan(const DeformConv& conv, int64_t image, int64_t group, int64_t first, int64_t count,
            TilePlan<T>& plan) const {
    plan.fill(conv, channel_data<T>(offset, image, 2 * group * conv.taps(), conv.pixels()),
              channel_data<T>(mask, image, group * conv.taps(), conv.pixels()), first, count);
  }
};

template <typename S, typename T>
void forward_all(const DeformConv& conv, const Sources& from, const at::Tensor& weight,
                 const at::Tensor& bias, const at::Tensor& result) {
  constexpr auto type = c10::CppTypeToScalarType<T>::value;
  const int64_t taps = conv.taps(), in = conv.group_in(), out = conv.group_out(), pixels = conv.pixels();
  // (groups, out, taps * in): the order of the columns.
  const at::Tensor matrices =
      weight.view({conv.groups, out, in, taps}).transpose(2, 3).reshape({conv.groups, out, taps * in});
  const std::vector<Segment> segments = segments_of(conv, 0, conv.channels);
  const int64_t tile = tile_pixels(taps * conv.channels, pixels), tiles = (pixels + tile - 1) / tile;
  const int64_t chunk = images_at_a_time(conv);
  const at::Tensor maps = bordered_maps(conv, chunk, type);
  for (int64_t begin = 0; begin < conv.images; begin += chunk) {
    const int64_t images = std::min(chunk, conv.images - begin);
    inner(maps.narrow(0, 0, images), conv).copy_(from.input.narrow(0, begin, images));
    at::parallel_for(0, images * tiles, 1, [&](int64_t task, int64_t last) {
      const KernelGuard kernel_guard;
      const at::Tensor buffer = at::empty({conv.groups, tile * taps * in}, at::TensorOptions().dtype(type));
      TilePlan<T> plan;
      for (; task < last; ++task) {
        const int64_t image = task / tiles, first = task % tiles * tile;
        const int64_t count = std::min(tile, pixels - first);
        const T* map = maps.const_data_ptr<T>() + image * maps.stride(0);
        int64_t planned = -1;
        for (const Segment& part : segments) {
          if (part.offset_group != planned) {
            from.plan(conv, begin + image, part.offset_group, first, count, plan);
            planned = part.offset_group;
          }
          sample_tile({count, taps, part.count, in, maps.size(2), conv.channels}, plan, map + part.begin,
                      buffer.mutable_data_ptr<T>() + part.group * buffer.stride(0) + part.begin % in);
        }
        const at::Tensor tile_result = result.select(0, begin + image).narrow(1, first, count);
        for (int64_t g = 0; g < conv.groups; ++g) {
          const at::Tensor columns =
              buffer.select(0, g).narrow(0, 0, count * taps * in).view({count, taps * in});
          at::Tensor target = tile_result.narrow(0, g * out, out);
          at::mm_out(target, matrices.select(0, g), columns.to(weight.scalar_type()).t());
          if (bias.defined()) target.add_(bias.narrow(0, g * out, out).unsqueeze(1));
        }
      }
    });
  }
}

// Channels of one backward task; groups smaller than a block stay whole.
int64_t block_channels(const DeformConv& conv) {
  const int64_t minimum = std::max(kBlockChannels, (conv.channels + kMaxBlocks - 1) / kMaxBlocks);
  const int64_t in = conv.group_in();
  if (in < minimum) return minimum / in * in;
  return std::min(in, (minimum + 15) / 16 * 16);
}

// One block: its segments by group, and the slot of each where sums over its channels are kept.
struct Part {
  int64_t group, begin, count;    // channels of one group of the convolution
  std::vector<Segment> segments;  // these, split at offset groups
  at::Tensor matrix;              // (out, taps * count)
};

struct Block {
  std::vector<Part> parts;
  int64_t first_slot = 0, first_offset_group = 0;
};

std::vector<Block> blocks_of(const DeformConv& conv, const at::Tensor& weight) {
  std::vector<Block> blocks;
  const int64_t in = conv.group_in(), out = conv.group_out(), size = block_channels(conv);
  const at::Tensor grouped = weight.view({conv.groups, out, in, conv.taps()});
  int64_t slots = 0;
  for (int64_t begin = 0, end; begin < conv.channels; begin = end) {
    // A block of a large group ends with the group.
    end = std::min(begin + size, size < in ? (begin / in + 1) * in : conv.channels);
    Block block{{}, slots, begin / conv.channels_per_offset()};
    slots += (end - 1) / conv.channels_per_offset() - block.first_offset_group + 1;
    for (int64_t c = begin; c < end;) {
      const int64_t count = std::min(end, (c / in + 1) * in) - c;
      const at::Tensor matrix =
          grouped.select(0, c / in).narrow(1, c % in, count).transpose(1, 2).reshape({out, -1});
      block.parts.push_back({c / in, c, count, segments_of(conv, c, c + count), matrix});
      c += count;
    }
    blocks.push_back(std::move(block));
  }
  return blocks;
}

// Sums that the tasks of a backward pass fill, each a part of its own.
struct Sums {
  at::Tensor maps;       // (images at a time, rows, columns, C): gradient of the bordered maps
  at::Tensor tap_grads;  // (slots, B, taps, 3, pixels)
  at::Tensor weights;    // (image groups, C * taps * out of a group), block after block
};

template <typename S, typename T>
class BackwardTask {
 public:
  BackwardTask(const DeformConv& conv, const Sources& from, const at::Tensor& maps, const at::Tensor& grad,
               const Needs& needs, const Sums& sums)
      : conv_(conv), from_(from), maps_(maps), grad_(grad), needs_(needs), sums_(sums) {
    tile_ = tile_pixels(conv.taps() * std::max(block_channels(conv), int64_t{1}) * 4, conv.pixels());
    const auto options = at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value);
    const int64_t values = tile_ * conv.taps() * std::min(block_channels(conv), conv.group_in());
    columns_ = at::empty({values}, options);
    grads_ = at::empty({values}, options);
  }

  // One block of channels of one image; `slot` is its index in maps.
  void run(const Block& block, int64_t image, int64_t slot, int64_t image_group) {
    for (int64_t first = 0; first < conv_.pixels(); first += tile_) {
      const int64_t count = std::min(tile_, conv_.pixels() - first);
      int64_t planned = -1;
      for (const Part& part : block.parts) {
        const at::Tensor grad =
            grad_.select(0, image).narrow(0, part.group * conv_.group_out(), conv_.group_out());
        const at::Tensor here = grad.narrow(1, first, count);
        at::Tensor rows = grads_.narrow(0, 0, count * part.count * conv_.taps()).view({count, -1});
        if (needs_.input || needs_.taps) multiply(rows, here.t(), part.matrix);
        for (const Segment& segment : part.segments) {
          if (segment.offset_group != planned) {
            from_.plan(conv_, image, segment.offset_group, first, count, plan_);
            planned = segment.offset_group;
          }
          scatter_segment(block, part, segment, image, slot, first, count);
        }
        if (needs_.weight) add_weight(part, here, count, image_group);
      }
    }
  }

 private:
  static void multiply(at::Tensor& result, const at::Tensor& a, const at::Tensor& b) {
    if constexpr (std::is_same_v<S, T>) {
      at::mm_out(result, a, b);
    } else {
      result.copy_(at::mm(a, b));
    }
  }

  void scatter_segment(const Block& block, const Part& part, const Segment& segment, int64_t image,
                       int64_t slot, int64_t first, int64_t count) {
    const int64_t within = segment.begin - part.begin;
    const int64_t map = slot * maps_.stride(0) + segment.begin;
    TapGrads<T> tap_grads{nullptr, conv_.pixels()};
    if (needs_.taps) {
      const int64_t row = block.first_slot + segment.offset_group - block.first_offset_group;
      tap_grads.data = sums_.tap_grads.mutable_data_ptr<T>() + row * sums_.tap_grads.stride(0) +
                       image * sums_.tap_grads.stride(1) + first;
    }
    scatter_tile(needs_, {count, conv_.taps(), segment.count, part.count, maps_.size(2), conv_.channels},
                 plan_, grads_.const_data_ptr<T>() + within, maps_.const_data_ptr<T>() + map,
                 needs_.input ? sums_.maps.mutable_data_ptr<T>() + map : nullptr,
                 columns_.mutable_data_ptr<T>() + within, tap_grads);
  }

  void add_weight(const Part& part, const at::Tensor& grad, int64_t count, int64_t image_group) {
    const int64_t out = conv_.group_out(), row = conv_.taps() * part.count;
    const at::Tensor columns = columns_.narrow(0, 0, count * row).view({count, row});
    at::Tensor sum = sums_.weights.select(0, image_group)
                         .narrow(0, part.begin * conv_.taps() * out, out * row)
                         .view({out, row});
    if constexpr (std::is_same_v<S, T>) {
      at::addmm_out(sum, sum, grad, columns);
    } else {
      sum.add_(at::mm(grad, columns.to(grad.scalar_type())));
    }
  }

  const DeformConv& conv_;
  const Sources& from_;
  const at::Tensor &maps_, &grad_;
  Needs needs_;
  const Sums& sums_;
  int64_t tile_;
  at::Tensor columns_, grads_;
  TilePlan<T> plan_;
};

// (image groups, ...) block after block -> gradient of the weight.
at::Tensor collect_weight(const DeformConv& conv, const std::vector<Block>& blocks, const Sums& sums,
                          const at::Tensor& weight) {
  const int64_t out = conv.group_out(), taps = conv.taps();
  const at::Tensor sum = sums.weights.sum(0);
  at::Tensor result = at::empty_like(weight);
  const at::Tensor grouped = result.view({conv.groups, out, conv.group_in(), taps});
  for (const Block& block : blocks) {
    for (const Part& part : block.parts) {
      grouped.select(0, part.group)
          .narrow(1, part.begin % conv.group_in(), part.count)
          .copy_(sum.narrow(0, part.begin * taps * out, out * taps * part.count)
                     .view({out, taps, part.count})
                     .transpose(1, 2));
    }
  }
  return result;
}

// (slots, B, taps, 3, pixels) -> (B, offset groups, taps, 3, pixels).
at::Tensor collect_tap_grads(const DeformConv& conv, const std::vector<Block>& blocks, const Sums& sums) {
  at::Tensor total =
      at::zeros({conv.images, conv.offset_groups, conv.taps(), 3, conv.pixels()}, sums.tap_grads.options());
  for (size_t i = 0; i < blocks.size(); ++i) {
    const int64_t end = i + 1 < blocks.size() ? blocks[i + 1].first_slot : sums.tap_grads.size(0);
    for (int64_t slot = blocks[i].first_slot; slot < end; ++slot) {
      total.select(1, blocks[i].first_offset_group + slot - blocks[i].first_slot)
          .add_(sums.tap_grads.select(0, slot));
    }
  }
  return total;
}

template <typename S, typename T>
DeformGrads backward_all(const DeformConv& conv, const Sources& from, const at::Tensor& grad,
                         const at::Tensor& weight, const at::Tensor& grad_input, const at::Tensor& offset,
                         const std::optional<at::Tensor>& mask, const std::array<bool, 4>& needed) {
  constexpr auto type = c10::CppTypeToScalarType<T>::value;
  const auto options = at::TensorOptions().dtype(type);
  const Needs needs{needed[0], needed[1] || needed[2], needed[3]};
  const std::vector<Block> blocks = blocks_of(conv, weight);
  const int64_t slots = blocks.back().first_slot + conv.offset_groups - blocks.back().first_offset_group;
  const int64_t chunk = images_at_a_time(conv), image_groups = std::min(kMaxImageGroups, chunk);
  const at::Tensor maps = bordered_maps(conv, chunk, type);
  Sums sums;
  if (needs.taps) sums.tap_grads = at::zeros({slots, conv.images, conv.taps(), 3, conv.pixels()}, options);
  if (needs.weight) sums.weights = at::zeros({image_groups, weight.numel()}, options);
  const int64_t count = static_cast<int64_t>(blocks.size());
  for (int64_t begin = 0; begin < conv.images; begin += chunk) {
    const int64_t images = std::min(chunk, conv.images - begin);
    inner(maps.narrow(0, 0, images), conv).copy_(from.input.narrow(0, begin, images));
    if (needs.input) sums.maps = bordered_maps(conv, images, type);
    at::parallel_for(0, image_groups * count, 1, [&](int64_t task, int64_t last) {
      const KernelGuard kernel_guard;
      BackwardTask<S, T> work(conv, from, maps, grad, needs, sums);
      for (; task < last; ++task) {
        const int64_t group = task / count;
        for (int64_t i = group; i < images; i += image_groups) {
          work.run(blocks[task % count], begin + i, i, group);
        }
      }
    });
    if (needs.input) grad_input.narrow(0, begin, images).copy_(inner(sums.maps, conv));
  }
  at::Tensor grad_offset = at::empty({0}, weight.options()), grad_mask = at::empty({0}, weight.options());
  if (needs.taps) {
    const at::Tensor total = collect_tap_grads(conv, blocks, sums);
    if (needed[1]) grad_offset = take_tap_grads(total, 0, 2, offset);
    if (needed[2]) grad_mask = take_tap_grads(total, 2, 1, *mask);
  }
  const at::Tensor grad_weight =
      needs.weight ? collect_weight(conv, blocks, sums, weight) : at::empty({0}, weight.options());
  return {grad_input, grad_offset, grad_mask, grad_weight};
}

at::Tensor deform_conv2d(const at::Tensor& input, const at::Tensor& offset,
                         const std::optional<at::Tensor>& mask, const at::Tensor& weight,
                         const std::optional<at::Tensor>& bias, at::IntArrayRef stride,
                         at::IntArrayRef padding, at::IntArrayRef dilation) {
  const char* op = "deform_conv2d";
  const DeformConv conv = check_deform_conv(op, input, offset, mask, weight, stride, padding, dilation);
  check_deform_bias(op, conv, input, bias);
  const KernelGuard kernel_guard;
  at::Tensor output = at::empty({conv.images, conv.out_channels, conv.out_height, conv.out_width},
                                input.options(), memory_format_of(input));
  if (output.numel() == 0) return output;
  const at::Tensor flat = bias.has_value() ? bias->contiguous() : at::Tensor();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.scalar_type(), "deform_conv2d", [&] {
    using T = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    forward_all<scalar_t, T>(conv, Sources::make<T>(input, offset, mask), weight.contiguous(), flat,
                             by_pixel(output));
  });
  return output;
}

DeformGrads deform_conv2d_backward(const at::Tensor& grad, const at::Tensor& input, const at::Tensor& offset,
                                   const std::optional<at::Tensor>& mask, const at::Tensor& weight,
                                   at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                                   std::array<bool, 4> needed) {
  const char* op = "deform_conv2d_backward";
  const DeformConv conv = check_deform_conv(op, input, offset, mask, weight, stride, padding, dilation);
  check_deform_grad(op, conv, input, grad);
  check_deform_needed(op, mask, needed);
  const KernelGuard kernel_guard;
  const at::Tensor grad_input = needed[0] ? at::empty(input.sizes(), input.options(), memory_format_of(input))
                                          : at::empty({0}, input.options());
  DeformGrads result;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, input.scalar_type(), "deform_conv2d_backward", [&] {
        using T = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
        result = backward_all<scalar_t, T>(conv, Sources::make<T>(input, offset, mask), by_pixel(dense(grad)),
                                           weight.contiguous(), grad_input, offset, mask, needed);
      });
  return result;
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("deform_conv2d", TORCH_FN(mrb::deform_conv2d));
  m.impl("deform_conv2d_backward", TORCH_FN(mrb::deform_conv2d_backward));
}
