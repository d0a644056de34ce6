#pragma once

#include "temper/objective/objective.h"
#include "temper/objective/policy_loss.h"

namespace temper {

/// GRPO (Shao et al. 2024, eq. 3): the clipped surrogate, averaged over each completion's tokens,
/// then over completions. A token of a long completion counts less than one of a short completion.
///
/// `loss = 1/B sum_i 1/n_i sum_t -min(w A, clip(w) A)`, n_i active tokens of completion i.
class Grpo {
 public:
  using Config = ClippedLossConfig;
  using Batch = RolloutBatch;

  explicit Grpo(const Config& config) : terms_(config), range_(clip_range(config)) {}
  Grpo() : Grpo(Config{}) {}

  [[nodiscard]] LossOutput operator()(const RolloutBatch& batch) const {
    return clipped_policy_loss(batch, terms_, range_, &sequence_mean_of_token_means);
  }

 private:
  PolicyTerms terms_;
  ClipRange range_;
};
static_assert(RolloutLossType<Grpo>);

}  // namespace temper
