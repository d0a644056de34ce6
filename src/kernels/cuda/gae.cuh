#pragma once

#include "cuda/elementwise.cuh"
#include "gae_formula.h"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

inline constexpr int kGaeWarps = 2;

/// One warp a sequence, 32 tokens at a time from the end. Each lane has its token's delta; the
/// recursion itself is the CPU's chain, which all lanes walk together. One block a multiprocessor
/// is enough: without the 1, ptxas spills to get below 32 registers on sm_100.
__global__ void __launch_bounds__(32 * kGaeWarps, 1) gae_sequences(GaeArgs a) {
  for_warps<kGaeWarps>(a.sequences, [&](int64_t i) {
    const int64_t first = a.offsets[i];
    const double decay = a.gamma * a.lambda;
    double value_behind = gae_end_value(a, i);  // Of the next active token behind this chunk.
    double advantage = 0;
    for (int64_t end = a.offsets[i + 1]; end > first; end -= 32) {
      const int64_t t = end - 1 - lane_id();  // Lane 0 has the last token.
      const bool active = t >= first && (a.mask == nullptr || a.mask[t] != 0);
      const unsigned all = __ballot_sync(kAllLanes, active);
      const double value = active ? static_cast<double>(a.values[t]) : 0.0;
      const unsigned later = all & ((1u << lane_id()) - 1);
      const double neighbour = __shfl_sync(kAllLanes, value, later == 0 ? 0 : 31 - __clz(later));
      const double next_value = later == 0 ? value_behind : neighbour;
      const double reward = active ? static_cast<double>(a.rewards[t]) : 0.0;
      const double delta = gae_delta(reward, value, next_value, a.gamma);
      double own = 0;
      for (int lane = 0; lane < 32; ++lane) {
        const double d = __shfl_sync(kAllLanes, delta, lane);
        if ((all >> lane & 1u) != 0) advantage = d + decay * advantage;
        if (lane == static_cast<int>(lane_id())) own = advantage;
      }
      const double earliest = __shfl_sync(kAllLanes, value, all == 0 ? 0 : 31 - __clz(all));
      if (all != 0) value_behind = earliest;
      if (t >= first) {
        a.advantages[t] = active ? static_cast<float>(own) : 0.0f;
        if (a.returns != nullptr) a.returns[t] = active ? static_cast<float>(own + value) : 0.0f;
      }
    }
  });
}

inline Status launch_gae(const GaeArgs& a, Stream stream) {
  if (a.sequences < 0) return invalid_argument("[gae] sequences must be >= 0");
  if (!(a.gamma >= 0 && a.gamma <= 1 && a.lambda >= 0 && a.lambda <= 1)) {
    return invalid_argument("[gae] gamma and lambda must be in [0, 1]");
  }
  if (a.truncated != nullptr && a.bootstrap_values == nullptr && a.sequences > 0) {
    return invalid_argument("[gae] truncated sequences need bootstrap values");
  }
  return launch(gae_sequences, warp_blocks<kGaeWarps>(a.sequences), 32 * kGaeWarps, 0, stream, a);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
