// What a kernel that calls functions of at:: switches off.
#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>

namespace mrb {

// In its scope, functions of at:: neither record gradients nor autocast. Autograd is off already when a
// kernel starts, but not on its worker threads; under autocast, casting is on.
struct KernelGuard {
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  c10::impl::ExcludeDispatchKeyGuard no_autocast{c10::autocast_dispatch_keyset};
};

}  // namespace mrb
