#pragma once

#include <string_view>

#include "temper/kernels/backend.h"

namespace temper::ops {

/// Every op of the kernel layer in plain ATen: weights unpacked to row-major [n, k], LibTorch's
/// matmul, scaled_dot_product_attention and log_softmax, gradients by their formulas. Slow, short,
/// and independent of the CPU kernels: what those are tested against, and what to try when a number
/// looks wrong. Values agree within rounding. Bits do not: LibTorch chooses its products by shape,
/// so a token that is sampled and scored in batches of two shapes has two log-probs.
[[nodiscard]] const kernels::KernelTable& reference_kernels();

/// Chooses the kernels of the process by name: "cpu" (the built-in ones) or "reference". Not to be
/// called while a kernel runs. @throws Error for another name.
void select_kernels(std::string_view name);

/// Runs one scope on the reference kernels; what was in use before comes back at its end.
class ReferenceScope {
 public:
  ReferenceScope() : before_(kernels::kernel_table()) {
    kernels::replace_kernels(&reference_kernels());
  }
  ~ReferenceScope() { kernels::replace_kernels(before_); }
  ReferenceScope(const ReferenceScope&) = delete;
  ReferenceScope& operator=(const ReferenceScope&) = delete;

 private:
  const kernels::KernelTable* before_;
};

}  // namespace temper::ops
