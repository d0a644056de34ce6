#pragma once

#include <cstdint>

#include "temper/kernels/cuda.h"

namespace temper::kernels {

/// Sums over the active elements. None: all 0; one: variance 0.
struct MaskedStats {
  double sum = 0;
  double mean = 0;
  double variance = 0;  ///< Unbiased (n - 1), as in TRL's masked_var.
  int64_t count = 0;    ///< n, active elements.
};

/// Two passes (mean, then squared deviations) in double. Fixed order: blocks of 4096 elements; in a
/// block element i joins lane i mod 32, lanes are halved (i + 16, 8, 4, 2, 1); blocks are added in
/// order.
/// @param mask  [count] 0: left out, whatever stands there (NaN included); null: all active.
/// @throws Error if count is negative.
/// @note Same bits at any thread count.
[[nodiscard]] MaskedStats masked_stats(const float* x, const uint8_t* mask, int64_t count);

/// y = (x - mean) / sqrt(variance + eps), plus the mean again if it is not to be shifted away:
/// TRL's masked_whiten, with `stats` of this batch or of all ranks' elements. 0 where masked.
struct WhitenArgs {
  const float* x = nullptr;       ///< [count]
  const uint8_t* mask = nullptr;  ///< [count] or null.
  int64_t count = 0;
  const MaskedStats* stats = nullptr;
  double eps = 1e-8;
  bool shift_mean = true;  ///< False: the mean is added back.
  float* y = nullptr;      ///< [count] out; may be `x`.
};

/// Elementwise in double, rounded to fp32 once.
/// @throws Error if count is negative.
void whiten(const WhitenArgs& args);

namespace cuda {

/// Doubles of workspace that `masked_stats` needs for `count` elements.
[[nodiscard]] constexpr int64_t masked_stats_workspace(int64_t count) {
  return 2 * ((count + 4095) / 4096);
}

/// The same bits as the CPU's.
struct MaskedStatsArgs {
  const float* x = nullptr;       ///< [count]
  const uint8_t* mask = nullptr;  ///< [count] or null.
  int64_t count = 0;
  double* workspace = nullptr;   ///< [masked_stats_workspace(count)]
  MaskedStats* stats = nullptr;  ///< One, out.
};
Status masked_stats(const MaskedStatsArgs& args, Stream stream);

/// The same bits as the CPU's; `args.stats` lies on the device.
Status whiten(const WhitenArgs& args, Stream stream);

}  // namespace cuda
}  // namespace temper::kernels
