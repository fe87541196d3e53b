// Autocast of deform_conv2d: like any convolution it runs in the lower precision. Offsets keep theirs, since
// sampling positions need full precision.
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

namespace mrb {
namespace {

template <c10::DispatchKey key, c10::DeviceType device>
at::Tensor deform_conv2d(const at::Tensor& input, const at::Tensor& offset,
                         const std::optional<at::Tensor>& mask, const at::Tensor& weight,
                         const std::optional<at::Tensor>& bias, at::IntArrayRef stride,
                         at::IntArrayRef padding, at::IntArrayRef dilation) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(key);
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("maskrcnn_benchmark::deform_conv2d", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                            const at::Tensor&, const std::optional<at::Tensor>&, at::IntArrayRef,
                            at::IntArrayRef, at::IntArrayRef)>();
  const auto type = at::autocast::get_lower_precision_fp_from_device_type(device);
  const auto cast = [&](const auto& value) { return at::autocast::cached_cast(type, value, device); };
  return op.call(cast(input), offset, mask, cast(weight), cast(bias), stride, padding, dilation);
}

}  // namespace
}  // namespace mrb

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, AutocastCPU, m) {
  m.impl("deform_conv2d", TORCH_FN((mrb::deform_conv2d<c10::DispatchKey::AutocastCPU, c10::kCPU>)));
}

TORCH_LIBRARY_IMPL(maskrcnn_benchmark, AutocastCUDA, m) {
  m.impl("deform_conv2d", TORCH_FN((mrb::deform_conv2d<c10::DispatchKey::AutocastCUDA, c10::kCUDA>)));
}
