#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "temper/objective/advantage.h"

namespace temper {

/// `TokenRewardConfig` with its word read and its numbers checked, once.
struct TokenRewardTerms {
  /// @throws Error naming `estimator` for a setting out of range.
  TokenRewardTerms(const TokenRewardConfig& config, const char* estimator);

  kernels::KlEstimator kl_estimator = kernels::KlEstimator::kK1;
  double missing_eos_penalty = 0;
  double reward_clip = 0;
};

/// @throws Error naming `name` unless `value` is in [0, 1].
void check_share(double value, const char* estimator, const char* name);

/// The table's tokens, checked. @throws Error if there are none or they do not fit the rewards.
[[nodiscard]] const TokenTable& tokens_of(const RewardTable& table, const char* estimator);

/// `reward_scale (R - missing_eos_penalty [if truncated])` of each row; NaN stays.
[[nodiscard]] std::vector<double> row_scores(const TokenTable& tokens,
                                             std::span<const double> rewards,
                                             const TokenRewardTerms& terms);

/// What an estimator over tokens works on.
struct TokenRewards {
  std::vector<uint8_t> active;  ///< [tokens] the mask without the tokens of unscored rows.
  std::vector<float> rewards;   ///< [tokens] 0 where not active.
};

/// Shapes the rewards (`kernels::shape_rewards`) from the KL and `scores` ([rows], clipped here),
/// and writes `kl_sums` and `shaped_rewards` of `a`.
/// @throws Error if an active token's reward is not finite.
[[nodiscard]] TokenRewards token_rewards(const TokenTable& tokens, std::span<const double> scores,
                                         const TokenRewardTerms& terms, Advantages& a);

/// Sums of rewards from each token to its row's end, each further one discounted: [tokens].
[[nodiscard]] std::vector<float> rewards_to_go(const TokenTable& tokens, const TokenRewards& r,
                                               double gamma);

/// `(x - mean) / sqrt(variance + 1e-8)` over active elements, in place; 0 elsewhere.
void whiten_active(std::vector<float>& x, std::span<const uint8_t> active, bool shift_mean);

/// Writes what follows from `a.tokens` and `a.returns`: the rows' mean advantages, and the groups
/// that teach nothing (no active token; without a critic also no advantage but 0).
void finish_rows(const TokenTable& tokens, std::span<const uint8_t> active, int64_t group_size,
                 Advantages& a);

}  // namespace temper
