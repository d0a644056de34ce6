#pragma once

#include "cuda/elementwise.cuh"
#include "group_formula.h"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

/// One thread a group: groups are a few rows, and their sums run in row order.
__global__ void __launch_bounds__(kElementThreads) group_advantages_groups(GroupAdvantagesArgs a) {
  for_elements(a.groups, [&](int64_t g) {
    const int64_t first = a.offsets[g], end = a.offsets[g + 1];
    const GroupStat s = group_stat(a.rewards + first, end - first);
    if (a.stats != nullptr) a.stats[g] = s;
    if (a.advantages == nullptr) return;
    for (int64_t i = first; i < end; ++i) {
      a.advantages[i] = group_advantage(a.rewards[i], s, a.rule, a.eps);
    }
  });
}

inline Status launch_group_advantages(const GroupAdvantagesArgs& a, Stream stream) {
  if (a.groups < 0) return invalid_argument("[group_advantages] groups must be >= 0");
  return launch(group_advantages_groups, element_blocks(a.groups), kElementThreads, 0, stream, a);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
