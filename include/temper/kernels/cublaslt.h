#pragma once

#include <cstdint>
#include <memory>

#include "temper/kernels/linear.h"

namespace temper::kernels::cuda {

/// A weight as cuBLASLt reads it: rows, not panels.
struct LtWeight {
  const uint16_t* rows = nullptr;  ///< [n, k] bf16, contiguous, on the device, 16-byte aligned.
  int64_t n = 0;                   ///< A multiple of 8.
  int64_t k = 0;                   ///< A multiple of 8.
};

/// Forward products with Product::kDot by cuBLASLt instead of our own kernel, under the same
/// promise: a row's bits do not depend on the number of rows or on its place among them. cuBLASLt
/// chooses algorithms by shape; here one algorithm is pinned for each (n, k), without split-K and
/// without a reduction, so it needs no workspace. `pin` then proves the promise on this device:
/// rows are equal in bits for 1, 2, 3, 4, 8, 16, ... rows up to the most asked for; the first
/// algorithm that holds is kept. Where none holds, and for weights that were not pinned, products
/// run on `cuda::linear`. The bits of a weight's products differ between the two, so pin before the
/// first product and keep the choice.
///
/// The price: cuBLASLt cannot read panels, so a pinned weight is stored twice (2 n k bytes more),
/// and whoever updates the panels must write the rows too. The object owns the handle, the pins and
/// a buffer of rounded activations (2 x the most rows x the largest k bytes).
///
/// One thread and one stream at a time. `linear` does not allocate or wait, and can be captured.
class LtLinear {
 public:
  LtLinear();
  LtLinear(const LtLinear&) = delete;
  LtLinear& operator=(const LtLinear&) = delete;
  ~LtLinear();

  /// Chooses for (n, k). Allocates and waits: for start-up. Not being able to use cuBLASLt is no
  /// error; `pinned` tells.
  /// @param weight    Values to prove it with; any weight of the shape.
  /// @param most_rows Products of more rows run on `cuda::linear`. At least 1.
  Status pin(const LtWeight& weight, int64_t most_rows, Stream stream);
  /// Whether products of (n, k) run on cuBLASLt.
  [[nodiscard]] bool pinned(int64_t n, int64_t k) const;
  /// Why (n, k) is not pinned, as static text; empty where it is.
  [[nodiscard]] const char* reason(int64_t n, int64_t k) const;

  /// As `cuda::linear`. @param rows  The weight's rows, or null for `cuda::linear`; read where
  /// (n, k) is pinned, the product is kDot and the arguments fit (y_stride a multiple of 4, y at a
  /// multiple of 16 bytes).
  Status linear(const LinearArgs& args, const uint16_t* rows, Stream stream);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace temper::kernels::cuda
