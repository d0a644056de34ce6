#pragma once

#include "temper/objective/advantage.h"

namespace temper {

/// ReMax (Li et al. 2023, arXiv 2310.10505): the baseline of a prompt is the score of its greedy
/// completion; no critic, and one completion a prompt is enough.
///
///     A_t = sum_{s >= t} r_s - clip(reward_scale b),  b = the group's `greedy_scores`
///
/// Needs a `TokenTable` with greedy scores (from which the caller has taken any penalty for a
/// missing end); fills `Advantages::tokens`. A row without a score, and a group without a greedy
/// score, have advantage 0.
class ReMax {
 public:
  using Config = TokenRewardConfig;

  /// @throws Error for a setting out of range.
  explicit ReMax(const Config& config = {});
  /// @throws Error if the table has no tokens or no greedy scores.
  [[nodiscard]] Advantages operator()(const RewardTable& table) const;

 private:
  Config config_;
};

}  // namespace temper
