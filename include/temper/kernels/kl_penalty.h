#pragma once

#include <cstdint>

#include "temper/kernels/cuda.h"

namespace temper::kernels {

/// Largest log-ratio, in nats, that is put through exp: e^20 is far beyond any useful ratio and
/// far below overflow, so a diverged token costs a large finite number and never an infinity.
inline constexpr double kMaxLogRatio = 20.0;

/// Per-token estimators of KL(policy || reference), with d = logprob - ref_logprob of a token that
/// the policy drew (Schulman 2020, "Approximating KL divergence").
enum class KlEstimator : uint8_t {
  kK1,        ///< d: unbiased, of either sign. The right one in a reward, useless as a loss.
  kK2,        ///< d^2 / 2: biased, low variance; as a loss it follows the reverse KL.
  kK3,        ///< exp(-d) - 1 + d: unbiased, never negative; as a loss it follows the forward KL.
  kAbsolute,  ///< |d|.
  kExact,     ///< The sum over the whole vocabulary, which `linear_logprob` computes.
};

/// Arrays are flat over tokens. d is a difference in double; each output is rounded to fp32 once.
/// k3's exponent -d is clamped to +-`kMaxLogRatio`; beyond it value and slope keep those of the
/// bound. Near d = 0 it is summed as a series, so small penalties keep their digits.
struct KlPenaltyArgs {
  const float* logprobs = nullptr;      ///< [tokens] nats; not read for kExact.
  const float* ref_logprobs = nullptr;  ///< [tokens] nats; not read for kExact.
  const float* exact = nullptr;         ///< [tokens] nats; read for kExact only.
  const uint8_t* mask = nullptr;        ///< [tokens] 0: the token counts for nothing; null: all do.
  int64_t tokens = 0;
  KlEstimator estimator = KlEstimator::kK1;
  float* kl = nullptr;  ///< [tokens] out, nats; 0 where masked.
  /// [tokens] out, d kl / d logprob; 0 where masked. Null: not wanted. For kExact all 0: that
  /// gradient goes through every logit, by the KL coefficient of `linear_logprob`'s backward.
  float* dlogprobs = nullptr;
};

/// @throws Error if tokens is negative or kExact has no `exact` array.
/// @note Elementwise: what stands at masked places, NaN included, reaches nothing.
void kl_penalty(const KlPenaltyArgs& args);

/// Rewards of PPO with a KL penalty (Ziegler et al. 2019, eq. 2; Ouyang et al. 2022):
/// r_t = -kl_coef kl_t for active tokens, plus the sequence's score at its last active one, 0 where
/// masked. A sequence without an active token gets nothing.
struct ShapeRewardsArgs {
  const float* kl = nullptr;         ///< [tokens] of `kl_penalty`; null: no penalty.
  const float* scores = nullptr;     ///< [sequences]; a NaN is passed on to its token.
  const uint8_t* mask = nullptr;     ///< [tokens] or null: all active.
  const int64_t* offsets = nullptr;  ///< [sequences + 1] ascending: tokens of sequence i are
                                     ///< [offsets[i], offsets[i + 1]).
  int64_t sequences = 0;
  double kl_coef = 0;
  double score_clip = 0;     ///< Scores are clamped to +-this; 0: not.
  float* rewards = nullptr;  ///< [tokens] out.
};

/// Products and sums are in double, rounded to fp32 once.
/// @throws Error if sequences is negative, the offsets descend or score_clip is not >= 0.
/// @note A sequence's numbers depend on that sequence alone.
void shape_rewards(const ShapeRewardsArgs& args);

namespace cuda {

/// The same bits as the CPU's.
Status kl_penalty(const KlPenaltyArgs& args, Stream stream);

/// The same bits as the CPU's. The offsets, which lie on the device, are not checked.
Status shape_rewards(const ShapeRewardsArgs& args, Stream stream);

}  // namespace cuda
}  // namespace temper::kernels
