#pragma once

#include "cuda/elementwise.cuh"
#include "kl_formula.h"

namespace temper::kernels::cuda {
inline namespace TEMPER_CUDA_TARGET {

__global__ void __launch_bounds__(kElementThreads) kl_penalty_tokens(KlPenaltyArgs a) {
  for_elements(a.tokens, [&](int64_t t) {
    const bool exact = a.estimator == KlEstimator::kExact;
    KlTerm term{0, 0};
    if (a.mask == nullptr || a.mask[t] != 0) {
      term = exact ? kl_term(a.estimator, 0, static_cast<double>(a.exact[t]))
                   : kl_term(a.estimator,
                             static_cast<double>(a.logprobs[t]) -
                                 static_cast<double>(a.ref_logprobs[t]),
                             0);
    }
    a.kl[t] = static_cast<float>(term.value);
    if (a.dlogprobs != nullptr) a.dlogprobs[t] = static_cast<float>(term.slope);
  });
}

inline constexpr int kRewardWarps = 4;

/// One warp a sequence, from its end: the first active token that it meets gets the score.
__global__ void __launch_bounds__(32 * kRewardWarps) shape_rewards_sequences(ShapeRewardsArgs a) {
  for_warps<kRewardWarps>(a.sequences, [&](int64_t i) {
    const int64_t first = a.offsets[i];
    bool scored = false;
    for (int64_t end = a.offsets[i + 1]; end > first; end -= 32) {
      const int64_t t = end - 1 - lane_id();
      const bool active = t >= first && (a.mask == nullptr || a.mask[t] != 0);
      const unsigned later = __ballot_sync(kAllLanes, active) & ((1u << lane_id()) - 1);
      double reward = active ? kl_reward(a.kl, t, a.kl_coef) : 0.0;
      if (active && !scored && later == 0) {
        reward += clip_score(static_cast<double>(a.scores[i]), a.score_clip);
      }
      scored = scored || __any_sync(kAllLanes, active);
      if (t >= first) a.rewards[t] = static_cast<float>(reward);
    }
  });
}

inline Status launch_kl_penalty(const KlPenaltyArgs& a, Stream stream) {
  if (a.tokens < 0) return invalid_argument("[kl_penalty] tokens must be >= 0");
  if (a.estimator == KlEstimator::kExact && a.exact == nullptr && a.tokens > 0) {
    return invalid_argument("[kl_penalty] the exact estimator needs the KL over the vocabulary");
  }
  return launch(kl_penalty_tokens, element_blocks(a.tokens), kElementThreads, 0, stream, a);
}

inline Status launch_shape_rewards(const ShapeRewardsArgs& a, Stream stream) {
  if (a.sequences < 0) return invalid_argument("[shape_rewards] sequences must be >= 0");
  if (!(a.score_clip >= 0)) return invalid_argument("[shape_rewards] score_clip must be >= 0");
  return launch(shape_rewards_sequences, warp_blocks<kRewardWarps>(a.sequences), 32 * kRewardWarps,
                0, stream, a);
}

}  // namespace TEMPER_CUDA_TARGET
}  // namespace temper::kernels::cuda
