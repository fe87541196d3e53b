// For kernels that call functions of at::.
#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>

namespace mrb {

// While it lives, functions of at:: neither record gradients nor cast. A kernel starts with the first
// switched off already, but not on its worker threads, and under autocast with the second switched on.
struct PlainOps {
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  c10::impl::ExcludeDispatchKeyGuard no_autocast{c10::autocast_dispatch_keyset};
};

}  // namespace mrb
