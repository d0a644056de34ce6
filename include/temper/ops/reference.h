#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "temper/kernels/backend.h"

namespace temper::ops {

/// Every op of the kernel layer in plain ATen: weights unpacked to row-major [n, k], LibTorch's
/// matmul, scaled_dot_product_attention and log_softmax, gradients by their formulas. Slow, short,
/// and independent of the CPU kernels: what those are tested against, and what to try when a number
/// looks wrong. Values agree within rounding. Bits do not: LibTorch chooses its products by shape,
/// so a token that is sampled and scored in batches of two shapes has two log-probs.
[[nodiscard]] const kernels::KernelTable& reference_kernels();

/// "cpu" (the built-in kernels) and "reference", for options and configs.
[[nodiscard]] const std::vector<std::string>& kernel_names();

/// Chooses the kernels of the process for one scope; what was in use before comes back at its end.
/// Neither end may lie where a kernel runs.
class KernelScope {
 public:
  /// @throws Error for a name that is none of `kernel_names`.
  explicit KernelScope(std::string_view name);
  ~KernelScope() { kernels::replace_kernels(before_); }
  KernelScope(const KernelScope&) = delete;
  KernelScope& operator=(const KernelScope&) = delete;

 private:
  const kernels::KernelTable* before_;
};

}  // namespace temper::ops
