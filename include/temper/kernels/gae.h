#pragma once

#include <cstdint>

#include "temper/kernels/cuda.h"

namespace temper::kernels {

/// Generalized advantage estimation (Schulman et al. 2015, eq. 16) over ragged sequences:
///   delta_t = r_t + gamma V_{t+1} - V_t,  A_t = delta_t + gamma lambda A_{t+1},  return_t = A_t +
///   V_t,
/// where t + 1 is the sequence's next active token. Behind the last one A = 0, and V is the
/// sequence's bootstrap value if it was truncated, else 0.
///
/// A masked token inside a sequence (what a tool wrote, say) is stepped over as if it were not
/// there: no discount, and its reward and value are not read. Its outputs are 0.
struct GaeArgs {
  const float* rewards = nullptr;    ///< [tokens]
  const float* values = nullptr;     ///< [tokens] of the state before each token.
  const uint8_t* mask = nullptr;     ///< [tokens] or null: all active.
  const int64_t* offsets = nullptr;  ///< [sequences + 1] ascending: tokens of sequence i are
                                     ///< [offsets[i], offsets[i + 1]).
  int64_t sequences = 0;
  const float* bootstrap_values = nullptr;  ///< [sequences] of the state behind the last token.
  const uint8_t* truncated = nullptr;       ///< [sequences] 1: cut by length, use the bootstrap
                                            ///< value. Null: no sequence was.
  double gamma = 1.0;                       ///< In [0, 1].
  double lambda = 0.95;                     ///< In [0, 1].
  float* advantages = nullptr;              ///< [tokens] out; must not overlap an input.
  float* returns = nullptr;                 ///< [tokens] out: targets of the value; or null.
};

/// The recursion runs in double, one chain a sequence from its end; outputs are rounded to fp32
/// once.
/// @throws Error if sequences is negative, the offsets descend, gamma or lambda is outside [0, 1],
///         or `truncated` is set without `bootstrap_values`.
/// @note A sequence's numbers depend on that sequence alone.
void gae(const GaeArgs& args);

namespace cuda {

/// The same bits as the CPU's. The offsets, which lie on the device, are not checked.
Status gae(const GaeArgs& args, Stream stream);

}  // namespace cuda
}  // namespace temper::kernels
